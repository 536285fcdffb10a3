//! The dashboard's files, inside the binary: one page at `/` and what it asks for.
//!
//! Not for: serving them; whoever has the listener looks paths up here. Nothing is built and nothing
//! is fetched: the files are served as they stand in this folder.
//!
//! - `index.html`, `dashboard.css`, `dashboard.js`: the page; it lives from `/events`
//! - `uPlot.iife.min.js`, `uPlot.min.css`: the charts, vendored; version and license in `uPlot.LICENSE.txt`

/// A file as it goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// The path it is served at.
    pub path: &'static str,
    /// Its media type.
    pub content_type: &'static str,
    /// All of it.
    pub bytes: &'static [u8],
}

/// What the page may do: run and draw what this host serves, and ask this host. Nothing inline, nothing from elsewhere.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The file served at `path`, the page itself at `/`.
pub fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

static ASSETS: [Asset; 6] = [
    Asset { path: "/", content_type: HTML, bytes: include_bytes!("index.html") },
    Asset { path: "/dashboard.css", content_type: CSS, bytes: include_bytes!("dashboard.css") },
    Asset { path: "/dashboard.js", content_type: JAVASCRIPT, bytes: include_bytes!("dashboard.js") },
    Asset { path: "/uPlot.iife.min.js", content_type: JAVASCRIPT, bytes: include_bytes!("uPlot.iife.min.js") },
    Asset { path: "/uPlot.min.css", content_type: CSS, bytes: include_bytes!("uPlot.min.css") },
    Asset { path: "/uPlot.LICENSE.txt", content_type: TEXT, bytes: include_bytes!("uPlot.LICENSE.txt") },
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    fn text(path: &str) -> &'static str {
        std::str::from_utf8(asset(path).unwrap().bytes).unwrap()
    }

    #[test]
    fn everything_the_page_asks_for_is_here() {
        let page = text("/");
        let mut files = 0;
        for attribute in ["src=\"", "<link rel=\"stylesheet\" href=\""] {
            for rest in page.split(attribute).skip(1) {
                let file = rest.split('"').next().unwrap();
                assert!(asset(&format!("/{file}")).is_some(), "{file}");
                files += 1;
            }
        }
        assert_eq!(files, 4);
        assert!(asset("/uPlot").is_none() && asset("").is_none() && asset("/../mod.rs").is_none());
    }

    #[test]
    fn the_page_holds_what_its_policy_allows() {
        let page = text("/");
        // The style of an SVG inside a data: URL would be its own; there is none.
        assert!(!page.contains(" style=") && !page.contains("<style") && !page.contains("javascript:"));
        assert!(!page.contains(" onclick=") && !page.contains(" onload="));
        assert_eq!(page.matches("<script").count(), page.matches("<script src=").count());
        for file in [page, text("/dashboard.css"), text("/dashboard.js")] {
            let without_names = file.replace("http://www.w3.org/2000/svg", ""); // a name, not an address
            assert!(!without_names.contains("http://") && !without_names.contains("https://"));
        }
    }

    #[test]
    fn outside_text_cannot_become_markup() {
        let script = text("/dashboard.js");
        for risky in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
            assert!(!script.contains(risky), "{risky}");
        }
    }
}
