//! One page of the documentation: its links, the anchors of its headings, its code blocks and its code spans. Reads Markdown.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// A text with the line it begins on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Located {
    /// Counted from 1.
    pub(super) line: usize,
    /// The link's target, or the span's text.
    pub(super) text: String,
}

/// A code block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The line of its first line of code, counted from 1.
    pub(super) line: usize,
    /// The word behind the fence, or nothing.
    pub(super) language: String,
    /// The code.
    pub(super) text: String,
}

/// A page.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The file, from the workspace's root on.
    pub(super) path: PathBuf,
    /// Links and images.
    pub(super) links: Vec<Located>,
    /// The anchors of its headings.
    pub(super) anchors: BTreeSet<String>,
    /// Code blocks.
    pub(super) blocks: Vec<Block>,
    /// Code within a sentence.
    pub(super) spans: Vec<Located>,
}

impl Page {
    /// Reads a page; a path is from the workspace's root on.
    pub(super) fn read(root: &Path, path: &Path) -> Result<Self> {
        Ok(Self::parse(path, &text(root, path)?))
    }

    /// Parses the text of a page.
    pub(super) fn parse(path: &Path, text: &str) -> Self {
        let mut page = Self { path: path.to_owned(), ..Self::default() };
        let mut heading: Option<String> = None;
        let mut block: Option<Block> = None;
        for (event, Range { start, .. }) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            let line = 1 + text[..start].matches('\n').count();
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    page.links.push(Located { line, text: dest_url.into_string() });
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => page.add_anchor(&heading.take().unwrap_or_default()),
                Event::Start(Tag::CodeBlock(kind)) => {
                    // A block that is indented has no fence, and no language.
                    let (line, language) = match kind {
                        CodeBlockKind::Fenced(language) => (line + 1, language.into_string()),
                        CodeBlockKind::Indented => (line, String::new()),
                    };
                    block = Some(Block { line, language, text: String::new() });
                }
                Event::End(TagEnd::CodeBlock) => page.blocks.extend(block.take()),
                Event::Code(code) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&code);
                    }
                    page.spans.push(Located { line, text: code.into_string() });
                }
                Event::Text(words) => match (&mut block, &mut heading) {
                    (Some(block), _) => block.text.push_str(&words),
                    (None, Some(heading)) => heading.push_str(&words),
                    (None, None) => {}
                },
                _ => {}
            }
        }
        page
    }

    /// Adds a heading's anchor, as forges and mdbook make it: the second heading of the same words ends in `-1`.
    fn add_anchor(&mut self, heading: &str) {
        let anchor = heading.trim().to_lowercase().replace(' ', "-");
        let anchor: String = anchor.chars().filter(|&c| c.is_alphanumeric() || "-_".contains(c)).collect();
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(numbered).find(|a| !self.anchors.contains(a));
        self.anchors.extend(free);
    }
}

/// The text of a page. A line `{{#include FILE}}` stands for that file, whose path is from the page on, as in mdbook.
pub(super) fn text(root: &Path, path: &Path) -> Result<String> {
    let read = |path: &Path| {
        fs::read_to_string(root.join(path)).with_context(|| format!("reading {}", path.display()))
    };
    let mut whole = String::new();
    for line in read(path)?.lines() {
        let file = line.strip_prefix("{{#include ").and_then(|rest| rest.strip_suffix("}}"));
        match file.map(|file| beside(path, file)) {
            None => whole.push_str(line),
            Some(Some(included)) => whole.push_str(&read(&included)?),
            Some(None) => bail!("{}: `{line}` leaves the workspace", path.display()),
        }
        whole.push('\n');
    }
    Ok(whole)
}

/// The path that a page means by `target`, both from the workspace's root on; nothing if that is outside of the workspace.
pub(super) fn beside(page: &Path, target: &str) -> Option<PathBuf> {
    let mut path = page.parent()?.to_owned();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." if !path.pop() => return None,
            ".." => {}
            name => path.push(name),
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# The `--steer` option, in short

See [json](json.md#synmill-serve1), ![a picture](plots/a.svg)
and `synmill conns`; `[no](link)` is code.

| a | b |
|---|---|
| [c](c.md) | `d` |

```sh
cargo xtask run   # [no](link), either
```

    indented

## Twice
## Twice
";

    #[test]
    fn a_page_has_links_anchors_blocks_and_spans() {
        let page = Page::parse(Path::new("docs/x.md"), TEXT);
        let located = |list: &[(usize, &str)]| -> Vec<Located> {
            list.iter().map(|&(line, text)| Located { line, text: text.to_owned() }).collect()
        };
        assert_eq!(page.links, located(&[(3, "json.md#synmill-serve1"), (3, "plots/a.svg"), (8, "c.md")]));
        assert_eq!(page.spans, located(&[(1, "--steer"), (4, "synmill conns"), (4, "[no](link)"), (8, "d")]));
        assert!(page.anchors.iter().eq(["the---steer-option-in-short", "twice", "twice-1"]));
        let block =
            |line, language: &str, text: &str| Block { line, language: language.into(), text: text.into() };
        let run = block(11, "sh", "cargo xtask run   # [no](link), either\n");
        assert_eq!(page.blocks, [run, block(14, "", "indented\n")]);
    }

    #[test]
    fn a_target_is_found_from_the_page_on() {
        let beside = |page: &str, target| beside(Path::new(page), target);
        assert_eq!(beside("docs/a.md", "./plots/b.svg"), Some("docs/plots/b.svg".into()));
        assert_eq!(beside("docs/a.md", "../README.md"), Some("README.md".into()));
        assert_eq!(beside("README.md", "docs/a.md"), Some("docs/a.md".into()));
        assert_eq!(beside("docs/a.md", "../../etc/passwd"), None);
    }
}
