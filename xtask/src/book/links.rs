//! Finds dead links: to pages, to their anchors, to files of the tree, and web addresses that cannot be one.

use std::path::Path;

use super::page::{Page, beside};

/// The folder of the book. Its pages are built without the rest of the tree.
pub(super) const BOOK: &str = "docs";

/// Returns a line for each dead link of a page. Web addresses are checked for their form only.
pub(super) fn dead(root: &Path, page: &Page) -> Vec<String> {
    let dead = page.links.iter().filter_map(|link| {
        let reason = reason(root, page, &link.text).err()?;
        Some(format!("{}:{}: the link to {} is dead: {reason}", page.path.display(), link.line, link.text))
    });
    dead.collect()
}

/// Fails with the reason for which a link is dead.
fn reason(root: &Path, page: &Page, link: &str) -> Result<(), String> {
    if let Some((scheme, rest)) = link.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let is_one = scheme == "https" && host.contains('.') && !rest.contains(char::is_whitespace);
        return if is_one { Ok(()) } else { Err("write https://HOST/PATH".into()) };
    }
    let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
    let path = match target {
        "" => page.path.clone(),
        _ => beside(&page.path, target).ok_or("it leaves the workspace")?,
    };
    if page.path.starts_with(BOOK) && !path.starts_with(BOOK) {
        return Err(format!("a page of the book links to pages and files in {BOOK}/ only"));
    }
    let is_own = path == page.path;
    if !is_own && !root.join(&path).exists() {
        return Err(format!("there is no {}", path.display()));
    }
    if anchor.is_empty() {
        return Ok(());
    }
    let other =
        if is_own { None } else { Some(Page::read(root, &path).map_err(|error| format!("{error:#}"))?) };
    let anchors = &other.as_ref().unwrap_or(page).anchors;
    if anchors.contains(anchor) {
        return Ok(());
    }
    Err(format!("{} has no heading with the anchor {anchor}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use synmill_lab::workspace;

    /// The reason for which a link of a page is dead, if it is.
    fn check(page: &str, link: &str) -> Option<String> {
        let text = format!("# Here\n\n[a]({link})\n");
        dead(&workspace(), &Page::parse(Path::new(page), &text)).pop()
    }

    #[test]
    fn living_links_pass() {
        for link in ["json.md", "json.md#synmill-serve1", "#here", "plots", "https://www.rust-lang.org/x"] {
            assert_eq!(check("docs/x.md", link), None);
        }
        assert_eq!(check("README.md", "docs/json.md#synmill-conns1"), None);
        assert_eq!(check("README.md", "LICENSE-MIT"), None);
    }

    #[test]
    fn dead_links_are_named_with_their_line_and_reason() {
        for (link, reason) in [
            ("jsn.md", "there is no docs/jsn.md"),
            ("json.md#synmill-serve9", "docs/json.md has no heading with the anchor synmill-serve9"),
            ("#there", "docs/x.md has no heading with the anchor there"),
            ("../LICENSE-MIT", "a page of the book links to pages and files in docs/ only"),
            ("../../x", "it leaves the workspace"),
            ("http://www.rust-lang.org", "write https://HOST/PATH"),
            ("https://rust", "write https://HOST/PATH"),
        ] {
            let line = format!("docs/x.md:3: the link to {link} is dead: {reason}");
            assert_eq!(check("docs/x.md", link), Some(line));
        }
    }
}
