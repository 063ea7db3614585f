//! Checks a tree against the schema, collects every mistake, and turns the tree into JSON for the structs that
//! the schema came from.
//!
//! Knows only the part of JSON Schema that the structs in [`super::file`] produce. Generic over keys: it names none.

use serde_json::Value as Json;

use super::syntax;
use super::tree::{Mark, Node, Value};

/// The keys that lead to a value; the index of a list item is a segment such as `[1]`.
#[derive(Debug, Clone, Default)]
pub(super) struct Path(Vec<String>);

impl Path {
    pub fn child(&self, segment: impl Into<String>) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment.into());
        Self(segments)
    }

    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            if index > 0 && !segment.starts_with('[') {
                f.write_str(".")?;
            }
            f.write_str(segment)?;
        }
        Ok(())
    }
}

/// A mistake at a place in the tree.
pub(super) struct Mistake {
    pub at: Mark,
    pub path: Path,
    pub message: String,
}

/// The tree as JSON and all that is wrong with it; the JSON is whole only when nothing is.
pub(super) fn check(root: &Node, schema: &Json) -> (Json, Vec<Mistake>) {
    let mut checker = Checker { schema, mistakes: Vec::new() };
    let json = checker.value(root, root.at, schema, &Path::default());
    (json, checker.mistakes)
}

/// ``did you mean `brand`? `` when one of the known names is near enough to be meant, and the list of all.
pub(super) fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.collect();
    let near = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance);
    let list = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    match near {
        Some((_, candidate)) => format!("did you mean `{candidate}`? known: {list}"),
        None => format!("known: {list}"),
    }
}

/// A key that stands in more places is no hint.
const MOST_PLACES: usize = 3;

/// Where a key of this name is known: of all such places those that have most of their path in common with `path`.
fn belongs(schema: &Json, path: &Path, name: &str) -> Vec<String> {
    let here: Vec<&str> = path.segments().collect();
    let mut all = Vec::new();
    places(schema, schema, name, &mut Vec::new(), &mut all);
    let common = |place: &Vec<String>| {
        let same = |(one, other): &(&String, &&str)| *one == ANY || one == *other;
        place.iter().zip(&here).take_while(same).count()
    };
    let most = all.iter().map(common).max().unwrap_or_default();
    let near = all.iter().filter(|place| common(place) == most);
    // With the user's own names where they are known.
    let text = |place: &Vec<String>| {
        let segments = place.iter().zip(&here).take(most).map(|(_, here)| *here);
        let segments: Vec<&str> = segments.chain(place.iter().skip(most).map(String::as_str)).collect();
        format!("`{}`", segments.join("."))
    };
    let mut near: Vec<String> = near.filter(|place| !place.is_empty()).map(text).collect();
    near.dedup();
    near
}

/// A name that users give.
const ANY: &str = "NAME";

/// The paths of all sections below `section` that have a key of this name.
fn places(root: &Json, section: &Json, name: &str, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) {
    let section = resolve(root, section);
    for branch in section["anyOf"].as_array().into_iter().flatten() {
        places(root, branch, name, path, found);
    }
    let properties = section["properties"].as_object().into_iter().flatten();
    let named = section["additionalProperties"].is_object().then_some((ANY, &section["additionalProperties"]));
    for (key, value) in properties.map(|(key, value)| (key.as_str(), value)).chain(named) {
        if key == name {
            found.push(path.clone());
        }
        path.push(key.to_owned());
        places(root, value, name, path, found);
        path.pop();
    }
}

/// What `schema`, a part of `root`, stands for: itself, or what it refers to.
pub(super) fn resolve<'a>(root: &'a Json, schema: &'a Json) -> &'a Json {
    match schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => root.pointer(pointer).unwrap_or(schema),
        None => schema,
    }
}

struct Checker<'a> {
    schema: &'a Json,
    mistakes: Vec<Mistake>,
}

impl<'a> Checker<'a> {
    /// `at` is where to report: the key, or the item of a list.
    fn value(&mut self, node: &Node, at: Mark, schema: &'a Json, path: &Path) -> Json {
        let schema = self.resolve(schema);
        if let Some(branches) = schema["anyOf"].as_array() {
            return self.any_of(node, at, branches, path);
        }
        if let Some(values) = constants(schema) {
            return self.choice(node, at, &values, path);
        }
        match (kind(schema), &node.value) {
            ("object", Value::Map(entries)) => self.object(entries, at, schema, path),
            // A section whose keys are all commented out, or `memory:`, is an empty one.
            ("object", _) if node.is_nothing() => self.object(&[], at, schema, path),
            ("array", Value::List(items)) => self.array(items, at, schema, path),
            ("string", Value::Scalar { text, .. }) if !node.is_nothing() => self.text(text, at, schema, path),
            ("boolean", Value::Scalar { text, plain: true }) if node.shape() == "a boolean" => {
                Json::from(text == "true")
            }
            ("integer" | "number", Value::Scalar { text, plain: true }) => self.number(node, text, at, schema, path),
            _ => self.mismatch(node, at, schema, path),
        }
    }

    fn resolve(&self, schema: &'a Json) -> &'a Json {
        resolve(self.schema, schema)
    }

    /// The branches differ in shape, so the value's shape says which is meant.
    fn any_of(&mut self, node: &Node, at: Mark, branches: &'a [Json], path: &Path) -> Json {
        let wanted = match node.value {
            Value::Map(_) => "object",
            Value::List(_) => "array",
            Value::Scalar { .. } => "string",
        };
        match branches.iter().map(|branch| self.resolve(branch)).find(|branch| branch["type"] == wanted) {
            // `true` is no secret, whatever stands there: a slip in a template, most likely.
            Some(_) if node.shape() == "a boolean" && self.are_of_a_secret(branches) => {
                let what =
                    "expected a secret: a mapping with `env` or `file`, or a text (in quotes, if it is this one)";
                self.fault(at, path, format!("{what}, found {}", node.shape()))
            }
            Some(branch) if !node.is_nothing() => self.value(node, at, branch, path),
            _ => {
                let expected: Vec<_> = branches.iter().map(|branch| expected(self.resolve(branch))).collect();
                self.fault(at, path, format!("expected {}, found {}", expected.join(" or "), node.shape()))
            }
        }
    }

    fn are_of_a_secret(&self, branches: &'a [Json]) -> bool {
        branches.iter().any(|branch| self.resolve(branch)["writeOnly"] == true)
    }

    fn choice(&mut self, node: &Node, at: Mark, values: &[&str], path: &Path) -> Json {
        match &node.value {
            Value::Scalar { text, .. } if values.contains(&text.as_str()) => Json::from(text.as_str()),
            _ => {
                let list = values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
                let found = if node.shape() == "text" { "another text" } else { node.shape() };
                self.fault(at, path, format!("expected one of {list}, found {found}"))
            }
        }
    }

    fn object(&mut self, entries: &[(super::tree::Key, Node)], at: Mark, schema: &'a Json, parent: &Path) -> Json {
        let mut object = serde_json::Map::new();
        let known = schema["properties"].as_object();
        for (key, node) in entries {
            let path = parent.child(&key.name);
            if let Some(property) = known.and_then(|known| known.get(&key.name)) {
                object.insert(key.name.clone(), self.value(node, key.at, property, &path));
            } else if schema["additionalProperties"].is_object() {
                object.insert(key.name.clone(), self.value(node, key.at, &schema["additionalProperties"], &path));
            } else {
                let names = known.into_iter().flat_map(|known| known.keys().map(String::as_str));
                let belongs = match belongs(self.schema, parent, &key.name).as_slice() {
                    places @ [_, ..] if places.len() <= MOST_PLACES => {
                        format!("it belongs in {}; ", places.join(" or "))
                    }
                    _ => String::new(),
                };
                let message = format!("unknown key; {belongs}{}", suggestion(&key.name, names));
                // `{ hunter2 }` is a mapping whose key is the secret.
                let path = if schema["writeOnly"] == true { parent } else { &path };
                self.fault(key.at, path, message);
            }
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Json::as_str) {
            if !object.contains_key(name) {
                let message = format!("the key `{name}` is missing; expected {}", self.described(schema, name));
                self.fault(at, parent, message);
            }
        }
        self.exactly_one(&object, at, schema, parent);
        if schema["minProperties"].as_u64().is_some_and(|least| (entries.len() as u64) < least) {
            self.fault(at, parent, "expected at least one entry".to_owned());
        }
        Json::Object(object)
    }

    /// `oneOf` of `required` lists is how the structs say "exactly one of these keys".
    fn exactly_one(&mut self, object: &serde_json::Map<String, Json>, at: Mark, schema: &Json, path: &Path) {
        let Some(branches) = schema["oneOf"].as_array() else { return };
        let names: Vec<&str> = branches.iter().filter_map(|branch| branch["required"][0].as_str()).collect();
        let present = names.iter().filter(|name| object.contains_key(**name)).count();
        if present != 1 {
            let list = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            let of = if names.len() == 1 { "the key" } else { "exactly one of the keys" };
            let found = if present == 0 { "none".to_owned() } else { present.to_string() };
            self.fault(at, path, format!("expected {of} {list}, found {found}"));
        }
    }

    fn array(&mut self, items: &[Node], at: Mark, schema: &'a Json, path: &Path) -> Json {
        let count = items.len() as u64;
        if schema["minItems"].as_u64().is_some_and(|least| count < least) {
            self.fault(at, path, "expected at least one item, found an empty list".to_owned());
        }
        if let Some(most) = schema["maxItems"].as_u64().filter(|most| count > *most) {
            self.fault(at, path, format!("expected at most {most} items, found {count}"));
        }
        let checked = items
            .iter()
            .enumerate()
            .map(|(index, item)| self.value(item, item.at, &schema["items"], &path.child(format!("[{index}]"))));
        Json::Array(checked.collect())
    }

    fn text(&mut self, text: &str, at: Mark, schema: &Json, path: &Path) -> Json {
        if text.is_empty() && schema["minLength"].as_u64().is_some_and(|least| least > 0) {
            return self.fault(at, path, "must not be empty".to_owned());
        }
        if let Some(format) = schema["format"].as_str().and_then(syntax::named)
            && !(format.accepts)(text)
        {
            let found = if text.parse::<f64>().is_ok() { "a number alone" } else { "another text" };
            return self.fault(at, path, format!("expected {}, found {found}", format.expected));
        }
        Json::from(text)
    }

    fn number(&mut self, node: &Node, text: &str, at: Mark, schema: &Json, path: &Path) -> Json {
        let number = if schema["type"] == "integer" {
            text.parse::<u64>().ok().map(serde_json::Number::from)
        } else {
            text.parse().ok().and_then(serde_json::Number::from_f64)
        };
        let Some(number) = number else { return self.mismatch(node, at, schema, path) };
        let value = number.as_f64().unwrap_or(f64::INFINITY);
        let within = schema["minimum"].as_f64().is_none_or(|least| value >= least)
            && schema["exclusiveMinimum"].as_f64().is_none_or(|bound| value > bound)
            && schema["maximum"].as_f64().is_none_or(|most| value <= most);
        if !within {
            return self.fault(at, path, format!("expected {}, found another number", expected(schema)));
        }
        Json::Number(number)
    }

    fn mismatch(&mut self, node: &Node, at: Mark, schema: &Json, path: &Path) -> Json {
        self.fault(at, path, format!("expected {}, found {}", expected(schema), node.shape()))
    }

    fn described(&self, schema: &'a Json, name: &str) -> String {
        let property = self.resolve(&schema["properties"][name]);
        match property["anyOf"].as_array() {
            Some(branches) => {
                branches.iter().map(|branch| expected(self.resolve(branch))).collect::<Vec<_>>().join(" or ")
            }
            None => expected(property),
        }
    }

    fn fault(&mut self, at: Mark, path: &Path, message: String) -> Json {
        self.mistakes.push(Mistake { at, path: path.clone(), message });
        Json::Null
    }
}

/// The type of a value; of several the first, as which the others are read.
fn kind(schema: &Json) -> &str {
    schema["type"].as_str().or_else(|| schema["type"][0].as_str()).unwrap_or_default()
}

/// The values of a closed set: `enum`, or `oneOf` of constants where each has a description.
fn constants(schema: &Json) -> Option<Vec<&str>> {
    if let Some(values) = schema["enum"].as_array() {
        return Some(values.iter().filter_map(Json::as_str).collect());
    }
    let values: Vec<&str> = schema["oneOf"].as_array()?.iter().filter_map(|branch| branch["const"].as_str()).collect();
    (!values.is_empty()).then_some(values)
}

fn expected(schema: &Json) -> String {
    match kind(schema) {
        "object" if schema["oneOf"].is_array() && schema["required"].is_null() => {
            let names = schema["oneOf"].as_array().into_iter().flatten();
            let keys: Vec<_> =
                names.filter_map(|branch| branch["required"][0].as_str()).map(|name| format!("`{name}`")).collect();
            format!("a mapping with {}", keys.join(" or "))
        }
        "object" => "a mapping".to_owned(),
        "array" => "a list".to_owned(),
        "boolean" => "`true` or `false`".to_owned(),
        kind @ ("integer" | "number") => {
            let mut text = if kind == "integer" { "a whole number" } else { "a number" }.to_owned();
            if let Some(bound) = schema["exclusiveMinimum"].as_f64() {
                text += &format!(" above {bound}");
            }
            if let Some(least) = schema["minimum"].as_f64() {
                text += &format!(" from {least}");
            }
            if let Some(most) = schema["maximum"].as_f64() {
                text += &format!(" to {most}");
            }
            text
        }
        _ => schema["format"].as_str().and_then(syntax::named).map_or("text", |format| format.expected).to_owned(),
    }
}
