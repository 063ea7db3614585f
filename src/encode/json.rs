//! Writes JSON objects member by member, straight into the output.

use serde::Serialize;

/// The members of an object that is being written.
pub(super) struct Members<'o> {
    out: &'o mut Vec<u8>,
    first: bool,
}

/// Appends an object with the members that `fill` puts.
pub(super) fn object(out: &mut Vec<u8>, fill: impl FnOnce(&mut Members<'_>)) {
    out.push(b'{');
    fill(&mut Members { out, first: true });
    out.push(b'}');
}

impl Members<'_> {
    // Inlined, so that each name is a constant to copy and not a call.
    #[inline(always)]
    fn name(&mut self, name: &'static str) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        // Names are this crate's own and need no escapes.
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A member.
    #[inline(always)]
    pub(super) fn put<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) {
        self.name(name);
        serde_json::to_writer(&mut *self.out, value)
            .expect("a string, number or list of them has JSON, and memory takes it");
    }

    /// A member, if there is a value.
    #[inline(always)]
    pub(super) fn some<T: Serialize>(&mut self, name: &'static str, value: Option<T>) {
        if let Some(value) = value {
            self.put(name, &value);
        }
    }

    /// A member whose value is an object; left out when it would be empty.
    pub(super) fn object(&mut self, name: &'static str, fill: impl FnOnce(&mut Members<'_>)) {
        let (before, first) = (self.out.len(), self.first);
        self.name(name);
        let empty = self.out.len() + b"{}".len();
        object(self.out, fill);
        if self.out.len() == empty {
            self.out.truncate(before);
            self.first = first;
        }
    }

    /// A member whose value is an array of objects, one for each of `items`; left out when there are none.
    pub(super) fn objects<T>(
        &mut self,
        name: &'static str,
        items: impl IntoIterator<Item = T>,
        fill: impl Fn(&mut Members<'_>, T),
    ) {
        let mut items = items.into_iter().peekable();
        if items.peek().is_none() {
            return;
        }
        self.name(name);
        let mut separator = b'[';
        for item in items {
            self.out.push(separator);
            object(self.out, |members| fill(members, item));
            separator = b',';
        }
        self.out.push(b']');
    }

    /// A member whose value is JSON already. Its line breaks are left out: in valid JSON they stand between tokens
    /// only.
    pub(super) fn json(&mut self, name: &'static str, json: &str) {
        self.name(name);
        for line in json.split(['\n', '\r']) {
            self.out.extend_from_slice(line.as_bytes());
        }
    }
}
