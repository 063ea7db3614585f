//! The order of modules on the page about the architecture is true: each knows only those before it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::pages::{code_spans, read, repository, texts_below};

/// What the order alone does not keep apart: who knows nobody but these.
const APART: [(&str, &[&str]); 1] = [("simulate", &["event", "clock"])];
/// And who does not know whom.
const STRANGERS: [(&str, &str); 1] = [("sink", "source")];

/// The modules in the order in which the page names them first, each before what is asked of it.
fn reading_order(lib: &str) -> Vec<&str> {
    let all: BTreeSet<&str> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let page = lib.lines().map_while(|line| line.strip_prefix("//!"));
    let list = page.skip_while(|line| *line != " ## Modules, in reading order");
    let mut order: Vec<&str> = Vec::new();
    for span in list.flat_map(code_spans) {
        if all.contains(span) && !order.contains(&span) {
            order.push(span);
        }
    }
    assert_eq!(
        order.iter().copied().collect::<BTreeSet<_>>(),
        all,
        "src/lib.rs: modules, and those that the page names"
    );
    order
}

/// The top-level module that a file of `src` belongs to; none of a file that tests alone compile.
fn module_of(path: &Path) -> Option<String> {
    let path = path.strip_prefix(repository("src")).unwrap().with_extension("");
    let names: Vec<&str> = path.iter().map(|name| name.to_str().unwrap()).collect();
    let is_test = names.iter().any(|name| *name == "tests" || name.ends_with("_tests"));
    (!is_test && !["lib", "main"].contains(&names[0])).then(|| names[0].to_owned())
}

/// The code of a file, without comments and without what tests alone compile.
fn code(text: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let mut code = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            // An item ends where it begins, or with the first closing bracket that stands as far in as it does.
            let ends = |end: &&str| {
                let starts = end.trim_start();
                indent(end) == indent(line) && (end.ends_with(';') || starts.starts_with('}') || end.ends_with(" {}"))
            };
            let end = lines.by_ref().find(ends);
            assert!(end.is_some(), "an item of tests alone has no end: {text}");
        } else if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

/// The top-level modules that `code` names: as `crate::name`, or within `crate::{…}`.
fn named(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut named = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            named.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        for part in list.split_inclusive([',', '{', '}']) {
            let name = word(part.trim_start());
            if depth == 0 && !name.is_empty() {
                named.insert(name);
            }
            match part.chars().last() {
                Some('{') => depth += 1,
                Some('}') if depth == 0 => break,
                Some('}') => depth -= 1,
                _ => {}
            }
        }
    }
    named
}

#[test]
fn every_module_knows_only_those_before_it() {
    let lib = read("src/lib.rs");
    let order = reading_order(&lib);
    let place: BTreeMap<&str, usize> = order.iter().enumerate().map(|(place, module)| (*module, place)).collect();
    let mut arrows = BTreeSet::new();
    let mut wrong = Vec::new();
    for (path, text) in texts_below("src") {
        let Some(from) = module_of(&path) else { continue };
        for to in named(&code(&text)).into_iter().filter(|to| *to != from) {
            let path = path.strip_prefix(repository("")).unwrap().display();
            let at = |module: &str| *place.get(module).unwrap_or_else(|| panic!("{path}: no module {module}"));
            if at(&to) > at(&from) {
                wrong.push(format!("{path}: {from} → {to}, which the page names after it"));
            }
            if APART.iter().any(|(alone, known)| *alone == from && !known.contains(&to.as_str())) {
                wrong.push(format!("{path}: {from} → {to}, which it is to know nothing of"));
            }
            if STRANGERS.contains(&(&from, &to)) {
                wrong.push(format!("{path}: {from} → {to}, which are to know nothing of each other"));
            }
            arrows.insert((from.clone(), to));
        }
    }
    wrong.sort();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(arrows.len() >= 150, "{} arrows: they are not seen any more", arrows.len());
}

#[test]
fn arrows_are_seen_in_every_form_and_those_of_tests_are_not() {
    let text = "use crate::a::{self, X};\nuse crate::{b, c::{Y, Z}, d};\n// crate::e\n#[cfg(test)]\nuse crate::f;\n    \
                #[cfg(test)]\n    fn g() {\n        crate::g();\n    }\nfn h() { $crate::h() }\npub(crate) use i;\n\
                #[cfg(test)]\nmod tests {\n    use crate::j;\n}\n";
    assert_eq!(named(&code(text)).iter().map(String::as_str).collect::<Vec<_>>(), ["a", "b", "c", "d", "h"]);
}
