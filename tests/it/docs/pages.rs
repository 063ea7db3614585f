//! The README and the pages under docs/, as they are now: read when a test runs, not when it is built.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// One page.
pub struct Page {
    /// From the repository's root.
    pub path: String,
    pub text: String,
}

static PAGES: LazyLock<Vec<Page>> = LazyLock::new(|| {
    let entries = std::fs::read_dir(repository("docs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut paths: Vec<String> =
        names.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")).collect();
    paths.sort();
    paths.insert(0, "README.md".to_owned());
    let page = |path: String| Page { text: read(&path), path };
    paths.into_iter().map(page).collect()
});

/// All pages, the README first.
pub fn pages() -> &'static [Page] {
    &PAGES
}

/// The page of this path.
pub fn page(path: &str) -> &'static Page {
    pages().iter().find(|page| page.path == path).unwrap_or_else(|| panic!("no page {path}"))
}

/// A path from the repository's root.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of the repository.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The texts of the files below a folder of the repository, by their paths; of those that are text.
pub fn texts_below(folder: &str) -> Vec<(PathBuf, String)> {
    let mut texts = Vec::new();
    let mut folders = vec![repository(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                texts.push((path, text));
            }
        }
    }
    texts
}

impl Page {
    /// The fenced blocks of a language, without their fences.
    pub fn blocks(&self, language: &str) -> Vec<String> {
        let mut blocks = Vec::new();
        let mut lines = self.text.lines();
        while let Some(line) = lines.next() {
            let Some(found) = line.strip_prefix("```") else { continue };
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if found == language {
                blocks.push(block.join("\n") + "\n");
            }
        }
        blocks
    }

    /// The lines outside of fenced blocks.
    pub fn prose(&self) -> impl Iterator<Item = &str> {
        let mut in_block = false;
        self.text.lines().filter(move |line| {
            let fence = line.starts_with("```");
            in_block ^= fence;
            !fence && !in_block
        })
    }

    /// The code spans outside of blocks, line by line.
    pub fn spans(&self) -> Vec<Vec<&str>> {
        self.prose().map(|line| code_spans(line).collect()).collect()
    }

    /// The cells of the table whose head begins so, row by row.
    pub fn table(&self, head: &str) -> Vec<Vec<&str>> {
        let rows =
            self.prose().skip_while(|line| !line.starts_with(head)).skip(2).take_while(|line| line.starts_with('|'));
        let rows: Vec<Vec<&str>> = rows.map(cells).collect();
        assert!(!rows.is_empty(), "{}: no table {head}", self.path);
        rows
    }

    /// What links may point to within the page, as GitHub makes it of headings.
    pub fn anchors(&self) -> impl Iterator<Item = String> {
        let headings = self
            .prose()
            .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
        headings.map(|heading| {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
        })
    }

    /// Where its links point to.
    pub fn links(&self) -> Vec<&str> {
        self.prose().flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split(')').next()).collect()
    }
}

/// The cells of a row of a table.
pub fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split('|').map(str::trim).collect()
}

/// The code spans of a line.
pub fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}
