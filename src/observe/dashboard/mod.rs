//! The dashboard's files, as they are embedded: one page, its style, its script, and uPlot to draw with.

/// One file.
#[derive(Debug)]
pub struct Asset {
    /// Where it is asked for.
    pub path: &'static str,
    /// What it is.
    pub content_type: &'static str,
    /// All of it.
    pub bytes: &'static [u8],
}

/// The file that is asked for at `path`.
pub fn asset(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

/// What the page may load and whom it may ask: nothing and nobody but where it came from.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static ASSETS: [Asset; 5] = [
    Asset { path: "/", content_type: "text/html; charset=utf-8", bytes: include_bytes!("index.html") },
    Asset { path: "/dashboard.css", content_type: "text/css; charset=utf-8", bytes: include_bytes!("dashboard.css") },
    Asset { path: "/dashboard.js", content_type: SCRIPT, bytes: include_bytes!("dashboard.js") },
    Asset { path: "/uPlot.min.css", content_type: "text/css; charset=utf-8", bytes: include_bytes!("uPlot.min.css") },
    Asset { path: "/uPlot.iife.min.js", content_type: SCRIPT, bytes: include_bytes!("uPlot.iife.min.js") },
];

const SCRIPT: &str = "text/javascript; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_the_page_names_is_there_and_nothing_comes_from_elsewhere() {
        let page = std::str::from_utf8(asset("/").unwrap().bytes).unwrap();
        let named = page.split(['"', '\'']).filter(|text| text.ends_with(".js") || text.ends_with(".css"));
        let mut count = 0;
        for path in named {
            count += 1;
            let path = format!("/{}", path.trim_start_matches(['.', '/']));
            assert!(asset(&path).is_some(), "{path} is not embedded");
        }
        assert!(count >= 4, "the page names its style, its script and uPlot's");
        let named = page.replace("http://www.w3.org/2000/svg", ""); // the name of a vocabulary, which nobody asks
        assert!(!named.contains("http://") && !named.contains("https://"), "the page asks others");
        assert!(asset("/nothing").is_none());
    }
}
