//! YAML → a tree that knows the line and column of every key and value.
//!
//! Scalars stay as written: what `0123` or `no` means is for the schema to say, not for the shape of the text.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};

/// A place in the file, both counted from 1 as editors do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub line: usize,
    pub column: usize,
}

/// A value and where it begins.
#[derive(Clone)]
pub(super) struct Node {
    pub at: Mark,
    pub value: Value,
}

#[derive(Clone)]
pub(super) enum Value {
    /// A `plain` one is not quoted, and so may also be a number, a boolean or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

#[derive(Clone)]
pub(super) struct Key {
    pub name: String,
    pub at: Mark,
}

/// What keeps the text from being one YAML document of the kind read here.
pub(super) struct TreeError {
    pub at: Mark,
    pub message: String,
}

impl Node {
    /// What a person would call it, without its content.
    pub fn shape(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar { plain: false, .. } => "text",
            Value::Scalar { text, .. } => match text.as_str() {
                "" | "~" | "null" | "Null" | "NULL" => "nothing",
                "true" | "false" => "a boolean",
                _ if text.parse::<f64>().is_ok() => "a number",
                _ => "text",
            },
        }
    }

    pub fn is_nothing(&self) -> bool {
        self.shape() == "nothing"
    }

    /// Where the key (or, in a list, the item) at the end of `path` stands; if the path ends early, the last of
    /// its keys that is there.
    pub fn locate<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> Mark {
        let (mut node, mut at) = (self, self.at);
        for segment in path {
            let next = match &node.value {
                Value::Map(entries) => {
                    entries.iter().find(|(key, _)| key.name == segment).map(|(key, node)| (node, key.at))
                }
                Value::List(items) => segment
                    .trim_matches(['[', ']'])
                    .parse::<usize>()
                    .ok()
                    .and_then(|index| items.get(index))
                    .map(|item| (item, item.at)),
                Value::Scalar { .. } => None,
            };
            let Some(found) = next else { break };
            (node, at) = found;
        }
        at
    }
}

/// Reads one document. What a key given twice holds the second time is dropped, and an error.
pub(super) fn parse(text: &str) -> (Option<Node>, Vec<TreeError>) {
    let mut builder =
        Builder { parser: Parser::new_from_str(text), anchors: HashMap::new(), copied: 0, errors: Vec::new() };
    let root = builder.document();
    let mut errors = builder.errors;
    let root = root.map_err(|error| errors.push(error)).ok();
    (root, errors)
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    /// Nodes that aliases have copied so far.
    copied: usize,
    /// Those that do not end the reading.
    errors: Vec<TreeError>,
}

/// Aliases of aliases grow without bound; a config has no use for more copied nodes than this.
const MOST_COPIED: usize = 10_000;
/// Each level takes a stack frame here and in every later walk.
const DEEPEST: usize = 64;

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Node, TreeError> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
                _ if root.is_some() => return Err(error(span.start, "expected one YAML document, found a second")),
                event => root = Some(self.node(event, span, 0)?),
            }
        }
        Ok(root.unwrap_or(Node {
            at: Mark { line: 1, column: 1 },
            value: Value::Scalar { text: String::new(), plain: true },
        }))
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), TreeError> {
        match self.parser.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(fault)) => Err(scan_error(&fault)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, TreeError> {
        if depth > DEEPEST {
            return Err(error(span.start, "nested too deeply"));
        }
        let at = mark(span.start);
        let (value, anchor, tag) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                (Value::Scalar { text: text.into_owned(), plain }, anchor, tag)
            }
            Event::SequenceStart(anchor, tag) => (self.list(depth)?, anchor, tag),
            Event::MappingStart(anchor, tag) => (self.map(depth)?, anchor, tag),
            Event::Alias(anchor) => return self.alias(anchor, span.start),
            _ => return Err(error(span.start, "expected a value")),
        };
        if tag.is_some() {
            self.errors.push(error(span.start, "YAML tags have no meaning here"));
        }
        let node = Node { at, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, TreeError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, TreeError> {
        let mut entries: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Value::Map(entries));
            }
            let key = self.node(event, span, depth + 1)?;
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            let Value::Scalar { text: name, .. } = key.value else {
                self.errors.push(TreeError { at: key.at, message: "a key must be text".to_owned() });
                continue;
            };
            if let Some((first, _)) = entries.iter().find(|(other, _)| other.name == name) {
                let message = format!("the key `{name}` is already given in line {}", first.at.line);
                self.errors.push(TreeError { at: key.at, message });
                continue;
            }
            entries.push((Key { name, at: key.at }, node));
        }
    }

    fn alias(&mut self, anchor: usize, at: Marker) -> Result<Node, TreeError> {
        let node = self.anchors.get(&anchor).ok_or_else(|| error(at, "an alias inside its own anchor"))?;
        self.copied += count(node);
        if self.copied > MOST_COPIED {
            return Err(error(at, "aliases copy too much"));
        }
        Ok(Node { at: mark(at), value: node.value.clone() })
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::Scalar { .. } => 0,
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(entries) => entries.iter().map(|(_, node)| count(node)).sum(),
    }
}

fn mark(marker: Marker) -> Mark {
    Mark { line: marker.line().max(1), column: marker.col() + 1 }
}

fn error(at: Marker, message: &str) -> TreeError {
    TreeError { at: mark(at), message: message.to_owned() }
}

fn scan_error(fault: &ScanError) -> TreeError {
    TreeError { at: mark(*fault.marker()), message: format!("not YAML: {}", fault.info()) }
}
