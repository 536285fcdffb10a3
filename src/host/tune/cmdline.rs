//! What the kernel's command line lacks of what a profile wishes, and how to add it with the boot loader at hand.
//!
//! Suggested, never written: a wrong word there is a machine that does not come back, and no undo reaches it then.

use std::path::Path;

use serde::Serialize;

/// What to add, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// Words that are wished and not there.
    pub missing: Vec<String>,
    /// Words that are there with another value, which the missing ones replace.
    pub replaced: Vec<String>,
    /// Lines to follow, the reboot included; empty when nothing is missing.
    pub steps: Vec<String>,
}

/// Holds `wished` against the running kernel's command line; where that is not shown, all of it is missing.
pub(super) fn advise(root: &Path, running: Option<&str>, wished: Vec<String>) -> Advice {
    let running: Vec<&str> = running.unwrap_or_default().split_whitespace().collect();
    let missing: Vec<String> = wished.into_iter().filter(|word| !running.contains(&word.as_str())).collect();
    if missing.is_empty() {
        return Advice::default();
    }
    let key = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    let keys: Vec<String> = missing.iter().map(|word| key(word)).collect();
    let replaced = running.iter().filter(|word| word.contains('=') && keys.contains(&key(word)));
    let replaced: Vec<String> = replaced.map(|word| (*word).to_owned()).collect();
    let steps = steps(root, &missing.join(" "), &replaced.join(" "));
    Advice { missing, replaced, steps }
}

fn steps(root: &Path, add: &str, remove: &str) -> Vec<String> {
    let has = |path: &str| root.join(path).exists();
    let mut steps = Vec::new();
    if has("usr/sbin/grubby") || has("sbin/grubby") {
        let remove = if remove.is_empty() { String::new() } else { format!(" --remove-args=\"{remove}\"") };
        steps.push(format!("grubby --update-kernel=ALL{remove} --args=\"{add}\""));
        steps.push("reboot".to_owned());
        return steps;
    }
    if !remove.is_empty() {
        steps.push(format!("take out: {remove}"));
    }
    if has("etc/default/grub") {
        steps.push(format!("in /etc/default/grub, add to GRUB_CMDLINE_LINUX: {add}"));
        steps.push(if has("usr/sbin/update-grub") {
            "update-grub".to_owned()
        } else {
            "grub2-mkconfig -o /boot/grub2/grub.cfg".to_owned()
        });
    } else if has("etc/kernel/cmdline") || has("boot/loader/entries") || has("efi/loader/entries") {
        steps.push(format!("add to /etc/kernel/cmdline (systemd-boot): {add}"));
        steps.push("kernel-install add $(uname -r) /lib/modules/$(uname -r)/vmlinuz".to_owned());
    } else {
        steps.push(format!(
            "add to the kernel's command line, where this machine's boot loader or its host keeps it: {add}"
        ));
    }
    steps.push("reboot".to_owned());
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn words_that_are_there_are_not_asked_for() {
        let advice = advise(Path::new("/nowhere"), Some("quiet nohz_full=1-3"), words("nohz_full=1-3"));
        assert_eq!(advice, Advice::default());
    }

    #[test]
    fn a_word_with_another_value_is_replaced() {
        let advice = advise(Path::new("/nowhere"), Some("nohz_full=1 quiet"), words("nohz_full=1-3 iommu=pt"));
        assert_eq!(advice.missing, ["nohz_full=1-3", "iommu=pt"]);
        assert_eq!(advice.replaced, ["nohz_full=1"]);
        assert_eq!(advice.steps.first().map(String::as_str), Some("take out: nohz_full=1"));
        assert_eq!(advice.steps.last().map(String::as_str), Some("reboot"));
    }

    #[test]
    fn each_boot_loader_gets_its_own_words() {
        for (file, expected) in [
            ("usr/sbin/grubby", "grubby --update-kernel=ALL --args=\"iommu=pt\""),
            ("etc/default/grub", "in /etc/default/grub, add to GRUB_CMDLINE_LINUX: iommu=pt"),
            ("etc/kernel/cmdline", "add to /etc/kernel/cmdline (systemd-boot): iommu=pt"),
        ] {
            let root = std::env::temp_dir().join(format!("spinetail-cmdline-{}", std::process::id()));
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            let advice = advise(&root, Some("quiet"), words("iommu=pt"));
            std::fs::remove_dir_all(&root).unwrap();
            assert_eq!(advice.steps[0], expected);
        }
    }
}
