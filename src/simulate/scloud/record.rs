//! SCloud records: what an operation was, and how the API writes it at one reading.

use crate::event::Millis;
use crate::simulate::hash::{Draws, happens, mix};
use crate::simulate::history::{History, Slot};
use crate::simulate::options::Times;
use crate::simulate::text;

const REGIONS: [&str; 5] = ["cn-bj2", "cn-sh2", "sg", "hk", "us-ca"];
const APIS: [&str; 10] = [
    "CreateUHostInstance",
    "TerminateUHostInstance",
    "PoweroffUHostInstance",
    "AttachUDisk",
    "CreateUDBInstance",
    "UpdateFirewall",
    "LoginByPassword",
    "CreateAPIKey",
    "DescribeUHostInstance",
    "SetIAMPolicy",
];
const USERS: [(&str, &str); 6] = [
    ("ops", "ops@example.com"),
    ("李娜", "li.na@example.com"),
    ("deploy-bot", ""),
    ("María \"Mari\" Díaz", "maria@example.com"),
    ("root", "root@example.com"),
    ("auditor", "audit@example.com"),
];
const KINDS: [&str; 4] = ["uhost-", "udisk-", "udb-", "firewall-"];
/// Resources of the simulated project, so that a filter finds some.
const RESOURCES: u64 = 400;
const KEYS: u64 = 12;

/// An operation: what all readings of its record agree on.
#[derive(Debug, Clone)]
pub struct Operation {
    seed: u64,
    region: Option<&'static str>,
    api: &'static str,
    success: Option<bool>,
    user: (&'static str, &'static str),
    resources: [u64; 3],
    resource_count: usize,
    remote_ip: Option<[u8; 4]>,
    key: Option<u64>,
    time: Millis,
}

impl Operation {
    /// What happened at `slot`.
    #[must_use]
    pub fn at(history: &History, slot: &Slot) -> Self {
        let mut draws = Draws::of(history.seed(), slot.root);
        Self {
            seed: history.seed(),
            region: if draws.one_in(12) { None } else { Some(draws.pick(&REGIONS)) },
            api: draws.pick(&APIS),
            success: if draws.one_in(30) { None } else { Some(!draws.one_in(6)) },
            user: draws.pick(&USERS),
            resources: [draws.below(RESOURCES), draws.below(RESOURCES), draws.below(RESOURCES)],
            resource_count: draws.pick(&[0, 1, 1, 1, 1, 2, 3]),
            remote_ip: if draws.one_in(15) { None } else { Some([198, 51, 100, (draws.bits() & 255) as u8]) },
            key: if draws.one_in(4) { None } else { Some(draws.below(KEYS)) },
            time: slot.time,
        }
    }

    /// Writes what identifies it: a JSON array of Region, Api, IsSuccess, OperateTime (in seconds since the Unix
    /// epoch), UserName, UserEmail, the array of the related resources' ResourceId, RemoteIP and AccessKeyID,
    /// null for what is not there.
    pub fn identity(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        match self.region {
            Some(region) => text::string(out, region),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b',');
        text::string(out, self.api);
        out.push(b',');
        match self.success {
            Some(success) => text::boolean(out, success),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b',');
        text::number(out, (self.time / 1000).unsigned_abs());
        out.push(b',');
        text::string(out, self.user.0);
        out.push(b',');
        text::string(out, self.user.1);
        out.extend_from_slice(b",[");
        for (place, resource) in self.related().iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            self.resource_id(out, *resource);
        }
        out.extend_from_slice(b"],");
        match self.remote_ip {
            Some(address) => text::ip(out, address),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b',');
        match self.key {
            Some(key) => self.access_key(out, key),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b']');
    }

    /// Whether it concerns the resource of this id.
    #[must_use]
    pub fn concerns(&self, id: &str) -> bool {
        self.related().iter().any(|resource| {
            let mut written = Vec::new();
            self.resource_id(&mut written, *resource);
            unquoted(&written) == id.as_bytes()
        })
    }

    /// Whether it was done with one of these keys.
    #[must_use]
    pub fn used_one_of(&self, keys: &[&str]) -> bool {
        let mut written = Vec::new();
        if let Some(key) = self.key {
            self.access_key(&mut written, key);
        }
        keys.iter().any(|key| key.as_bytes() == unquoted(&written))
    }

    fn related(&self) -> &[u64] {
        &self.resources[..self.resource_count]
    }

    fn resource_id(&self, out: &mut Vec<u8>, resource: u64) {
        out.push(b'"');
        out.extend_from_slice(KINDS[(resource % 4) as usize].as_bytes());
        text::hex(out, self.seed ^ resource, 12);
        out.push(b'"');
    }

    fn access_key(&self, out: &mut Vec<u8>, key: u64) {
        out.push(b'"');
        text::hex(out, self.seed ^ (1_000 + key), 32);
        out.push(b'"');
    }
}

fn unquoted(written: &[u8]) -> &[u8] {
    written.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or_default()
}

/// Writes the record at `slot` as the reading `nonce` finds it: in this share of readings, names of resources
/// have changed. An odd record's text never varies.
pub fn write(out: &mut Vec<u8>, history: &History, slot: &Slot, nonce: u64, volatile_share: f64) {
    let operation = Operation::at(history, slot);
    if let Some(odd) = history.odd(slot.root) {
        write_odd(out, &operation, odd);
        return;
    }
    let changed = mix(nonce, slot.index);
    let version = if happens(changed, volatile_share) { 1 + changed % 6 } else { 0 };
    text::key_after(out, b'{', "Api");
    text::string(out, operation.api);
    if let Some(success) = operation.success {
        text::key_after(out, b',', "IsSuccess");
        text::boolean(out, success);
    }
    text::key_after(out, b',', "OperateTime");
    let seconds = (operation.time / 1000).unsigned_abs();
    match history.times() {
        Times::Documented => text::number(out, seconds),
        Times::OtherUnit => text::number(out, seconds * 1000),
        Times::Exponent => {
            text::decimal(out, operation.time / 1000, 9);
            out.extend_from_slice(b"e+09");
        }
        Times::Text => {
            out.push(b'"');
            text::number(out, seconds);
            out.push(b'"');
        }
    }
    if let Some(region) = operation.region {
        text::key_after(out, b',', "Region");
        text::string(out, region);
    }
    text::key_after(out, b',', "RelatedResource");
    out.push(b'[');
    for (place, resource) in operation.related().iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        text::key_after(out, b'{', "ResourceId");
        operation.resource_id(out, *resource);
        text::key_after(out, b',', "ResourceName");
        out.extend_from_slice(if version == 4 { "\"生产环境-".as_bytes() } else { b"\"prod-" });
        text::number(out, resource + version);
        out.extend_from_slice(b"\"}");
    }
    out.push(b']');
    text::key_after(out, b',', "UserName");
    text::string(out, operation.user.0);
    text::key_after(out, b',', "UserEmail");
    text::string(out, operation.user.1);
    match operation.remote_ip {
        Some(address) => {
            text::key_after(out, b',', "RemoteIP");
            text::ip(out, address);
        }
        // Absent or null: both occur.
        None if slot.root.is_multiple_of(2) => out.extend_from_slice(b",\"RemoteIP\":null"),
        None => {}
    }
    if let Some(key) = operation.key {
        text::key_after(out, b',', "AccessKeyID");
        operation.access_key(out, key);
    }
    if slot.root % 32 == 3 {
        out.extend_from_slice(b",\"Zone\":\"cn-bj2-02\",\"Cost\":{\"Amount\":1.50}");
    }
    out.push(b'}');
}

/// Writes what stands in the place of a record that is not written as documented, and tells whether its time can
/// be read from it.
pub fn write_odd(out: &mut Vec<u8>, operation: &Operation, odd: u64) -> bool {
    let kind = odd % 6;
    match kind {
        0 => {
            out.extend_from_slice(b"\"lost entry ");
            text::hex(out, odd, 8);
            out.push(b'"');
            return false;
        }
        1 => {
            text::number(out, odd >> 12);
            return false;
        }
        2 => {
            // Wrong types, but a time that can be read.
            out.extend_from_slice(b"{\"IsSuccess\":\"maybe\",\"RelatedResource\":\"none\",\"OperateTime\":");
            text::number(out, (operation.time / 1000).unsigned_abs());
        }
        3 => out.extend_from_slice(b"{\"IsSuccess\":true"),
        4 => out.extend_from_slice(b"{\"OperateTime\":\"yesterday\""),
        _ => out.extend_from_slice(b"{\"OperateTime\":null"),
    }
    text::key_after(out, b',', "Api");
    text::string(out, operation.api);
    text::key_after(out, b',', "RemoteIP");
    out.push(b'"');
    text::hex(out, odd, 12);
    out.extend_from_slice(b"\"}");
    kind == 2
}
