//! GenAuth records: what an act was, and how the API writes it at one reading.

use crate::event::Millis;
use crate::simulate::hash::{Draws, happens, mix};
use crate::simulate::history::{History, Slot};
use crate::simulate::options::Times;
use crate::simulate::text::{self, Zone};

/// Users of the simulated pool.
const USERS: u64 = 5_000;

const APPS: [(&str, &str); 5] =
    [("Console", "console"), ("员工门户", "portal"), ("Mobile App", "mobile"), ("Data Studio", "studio"), ("HR", "hr")];
const NAMES: [&str; 8] = ["张伟", "Li Na", "王芳", "Maria González", "O'Brien", "佐藤 \"さくら\"", "Chen Jie", "Ahmed"];
const EVENT_TYPES: [&str; 22] = [
    "login",
    "login",
    "login",
    "logout",
    "register",
    "verifyMfa",
    "updateUserProfile",
    "updateUserPrefile",
    "updateUserPassword",
    "updateUserEmail",
    "updateUserPhone",
    "bindMfa",
    "bindEmail",
    "bindPhone",
    "unbindPhone",
    "unbindEmail",
    "unbindMFA",
    "refreshUserTokenBySelf",
    "deleteAccount",
    "verifyFirstLogin",
    "securityResourceAccess",
    // Not in the published list.
    "passkeyEnrolled",
];
const DETAILS: [&str; 7] = [
    "用户登录成功",
    "用户名或密码错误",
    "使用手机验证码登录:\"+86\"",
    "User signed in with a social account",
    "修改了个人资料\n昵称",
    "",
    "Two-factor check passed 🔑",
];
/// A user agent's text, and its device, browser and system as the API parses them.
const AGENTS: [(&str, &str, &str, &str); 5] = [
    (
        "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/128.0.0.0 Safari/537.36",
        "Desktop",
        "Chrome",
        "Windows 10",
    ),
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
        "iPhone",
        "Safari",
        "iOS 17.5",
    ),
    ("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0", "Desktop", "Firefox", "Linux"),
    (
        "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/127.0.0.0 Mobile Safari/537.36",
        "Pixel 8",
        "Chrome Mobile",
        "Android 14",
    ),
    ("okhttp/4.12.0", "", "", ""),
];
/// Country (name, two letters, three letters), region (name, code), city, continent, time zone, longitude and latitude.
const PLACES: [[&str; 10]; 4] = [
    ["China", "CN", "CHN", "Beijing", "BJ", "Beijing", "AS", "Asia/Shanghai", "116.3883", "39.9289"],
    ["Singapore", "SG", "SGP", "Central Singapore", "01", "Singapore", "AS", "Asia/Singapore", "103.85", "1.2855"],
    ["Germany", "DE", "DEU", "Hesse", "HE", "Frankfurt am Main", "EU", "Europe/Berlin", "8.6843", "50.1188"],
    ["United States", "US", "USA", "California", "CA", "San José", "NA", "America/Los_Angeles", "-121.8865", "37.3388"],
];

/// An act of a user: what all readings of its record agree on.
#[derive(Debug, Clone)]
pub struct Act {
    seed: u64,
    user: u64,
    app: usize,
    client_ip: Option<Address>,
    /// What happened.
    pub event_type: &'static str,
    detail: Option<&'static str>,
    /// Whether it worked.
    pub success: bool,
    agent: usize,
    request: u64,
    zone: Zone,
    time: Millis,
}

#[derive(Debug, Clone, Copy)]
enum Address {
    Four([u8; 4]),
    Six(u64),
}

impl Act {
    /// What happened at `slot`.
    #[must_use]
    pub fn at(history: &History, slot: &Slot) -> Self {
        let mut draws = Draws::of(history.seed(), slot.root);
        let client_ip = match draws.below(20) {
            0 => None,
            1 => Some(Address::Six(draws.bits())),
            2 => Some(Address::Four([10, 0, 0, (draws.bits() & 63) as u8])),
            _ => Some(Address::Four([203, 0, 113, (draws.bits() & 255) as u8])),
        };
        Self {
            seed: history.seed(),
            user: draws.below(USERS),
            app: draws.pick(&[0, 1, 2, 3, 4]),
            client_ip,
            event_type: draws.pick(&EVENT_TYPES),
            detail: if draws.one_in(10) { None } else { Some(draws.pick(&DETAILS)) },
            success: !draws.one_in(7),
            agent: draws.pick(&[0, 1, 2, 3, 4]),
            // One request may write several records.
            request: mix(history.seed(), if draws.one_in(6) { slot.root / 2 * 2 } else { slot.root * 2 + 1 }),
            zone: draws.pick(&[Zone::Compact, Zone::Compact, Zone::Compact, Zone::Colon, Zone::Utc]),
            time: slot.time,
        }
    }

    /// Writes what identifies it: a JSON array of userId, appId, clientIp, eventType, eventDetail, success,
    /// userAgent, timestamp (in milliseconds since the Unix epoch) and requestId, null for what is not there.
    pub fn identity(&self, out: &mut Vec<u8>) {
        out.push(b'[');
        self.user_id(out);
        out.push(b',');
        self.app_id(out);
        out.push(b',');
        match self.client_ip {
            Some(address) => address.write(out),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b',');
        text::string(out, self.event_type);
        out.push(b',');
        match self.detail {
            Some(detail) => text::string(out, detail),
            None => out.extend_from_slice(b"null"),
        }
        out.push(b',');
        text::boolean(out, self.success);
        out.push(b',');
        text::string(out, AGENTS[self.agent].0);
        out.push(b',');
        text::number(out, self.time.unsigned_abs());
        out.push(b',');
        self.request_id(out);
        out.push(b']');
    }

    /// Writes userId.
    pub fn user_id(&self, out: &mut Vec<u8>) {
        quoted_hex(out, self.seed ^ self.user, 24);
    }

    /// Writes appId.
    pub fn app_id(&self, out: &mut Vec<u8>) {
        quoted_hex(out, self.seed ^ (1_000_000 + self.app as u64), 24);
    }

    /// Writes requestId.
    pub fn request_id(&self, out: &mut Vec<u8>) {
        quoted_hex(out, self.request, 32);
    }

    /// Writes clientIp, or nothing when there is none.
    pub fn client_ip(&self, out: &mut Vec<u8>) {
        if let Some(address) = self.client_ip {
            address.write(out);
        }
    }
}

impl Address {
    fn write(self, out: &mut Vec<u8>) {
        match self {
            Self::Four(bytes) => text::ip(out, bytes),
            Self::Six(bits) => {
                out.extend_from_slice(b"\"2001:db8::");
                text::hex(out, bits, 4);
                out.push(b'"');
            }
        }
    }
}

fn quoted_hex(out: &mut Vec<u8>, thing: u64, digits: usize) {
    out.push(b'"');
    text::hex(out, thing, digits);
    out.push(b'"');
}

/// One reading of the API: what it looks up afresh hangs on it.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Which reading it is.
    pub nonce: u64,
    /// Share of records whose looked-up fields have changed since they were written.
    pub volatile_share: f64,
}

/// Writes the record at `slot` as `reading` finds it. An odd record's text never varies.
pub fn write(out: &mut Vec<u8>, history: &History, slot: &Slot, reading: Reading) {
    let act = Act::at(history, slot);
    if let Some(odd) = history.odd(slot.root) {
        write_odd(out, &act, odd);
        return;
    }
    let shape = mix(act.request, slot.root);
    // The looked-up fields' version: 0 as they were, others as they became.
    let changed = mix(reading.nonce, slot.index);
    let version = if happens(changed, reading.volatile_share) { 1 + changed % 6 } else { 0 };
    text::key_after(out, b'{', "userId");
    act.user_id(out);
    text::key_after(out, b',', "userAvatar");
    out.extend_from_slice(b"\"https://files.example.com/avatar/");
    text::hex(out, act.user, 16);
    out.extend_from_slice(b".png?v=");
    text::number(out, version);
    out.push(b'"');
    text::key_after(out, b',', "userDisplayName");
    let name = NAMES[((act.user + version) % NAMES.len() as u64) as usize];
    if shape & 7 == 0 {
        text::ascii_string(out, name)
    } else {
        text::string(out, name)
    }
    text::key_after(out, b',', "userLoginsCount");
    text::number(out, act.user % 900 + version);
    app(out, &act, version);
    if let Some(address) = act.client_ip {
        text::key_after(out, b',', "clientIp");
        address.write(out);
    }
    text::key_after(out, b',', "eventType");
    text::string(out, act.event_type);
    if let Some(detail) = act.detail {
        text::key_after(out, b',', "eventDetail");
        if shape & 15 == 1 { text::ascii_string(out, detail) } else { text::string(out, detail) }
    }
    text::key_after(out, b',', "success");
    text::boolean(out, act.success);
    agent(out, &act, shape, version);
    place(out, &act, shape, version);
    text::key_after(out, b',', "timestamp");
    match history.times() {
        Times::Documented => {
            out.push(b'"');
            text::time(out, act.time, act.zone);
            out.push(b'"');
        }
        Times::OtherUnit => text::decimal(out, act.time, 3),
        Times::Exponent => {
            text::decimal(out, act.time, 12);
            out.extend_from_slice(b"E12");
        }
        Times::Text => {
            out.push(b'"');
            text::number(out, act.time.unsigned_abs());
            out.push(b'"');
        }
    }
    text::key_after(out, b',', "requestId");
    act.request_id(out);
    if shape % 32 == 2 {
        out.extend_from_slice(b",\"riskScore\":{\"level\":\"low\",\"value\":12.50,\"reasons\":[]}");
    }
    out.push(b'}');
}

fn app(out: &mut Vec<u8>, act: &Act, version: u64) {
    let (name, host) = APPS[act.app];
    text::key_after(out, b',', "appId");
    act.app_id(out);
    text::key_after(out, b',', "appName");
    text::string(out, if version > 3 { host } else { name });
    text::key_after(out, b',', "appLoginUrl");
    out.extend_from_slice(b"\"https://");
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(b".example.com/login\"");
    text::key_after(out, b',', "appLogo");
    out.extend_from_slice(b"\"https://files.example.com/logo/");
    out.extend_from_slice(host.as_bytes());
    out.extend_from_slice(if version == 2 { b"-2.png\"" } else { b"-1.png\"" });
}

fn agent(out: &mut Vec<u8>, act: &Act, shape: u64, version: u64) {
    let (full, device, browser, os) = AGENTS[act.agent];
    text::key_after(out, b',', "userAgent");
    text::string(out, full);
    text::key_after(out, b',', "parsedUserAgent");
    text::key_after(out, b'{', "device");
    text::string(out, device);
    // The two descriptions of the API differ in this name.
    text::key_after(out, b',', if shape & 3 == 0 { "name" } else { "browser" });
    text::string(out, browser);
    text::key_after(out, b',', "os");
    text::string(out, if version == 5 { "Unknown" } else { os });
    out.push(b'}');
}

fn place(out: &mut Vec<u8>, act: &Act, shape: u64, version: u64) {
    text::key_after(out, b',', "geoip");
    let known = matches!(act.client_ip, Some(Address::Four([203, ..])));
    if !known && shape & 1 == 0 {
        return out.extend_from_slice(b"null");
    }
    if !known {
        return out.extend_from_slice(b"{\"location\":null,\"country_name\":\"\"}");
    }
    const NAMES: [&str; 8] = [
        "country_name",
        "country_code2",
        "country_code3",
        "region_name",
        "region_code",
        "city_name",
        "continent_code",
        "timezone",
    ];
    let place = &PLACES[((shape >> 8) % 4) as usize];
    out.extend_from_slice(b"{\"location\":{\"lon\":");
    out.extend_from_slice(place[8].as_bytes());
    out.extend_from_slice(b",\"lat\":");
    out.extend_from_slice(place[9].as_bytes());
    out.push(b'}');
    // A newer database knows the city.
    for (at, name) in NAMES.into_iter().enumerate().filter(|(at, _)| version != 1 || *at != 5) {
        text::key_after(out, b',', name);
        text::string(out, place[at]);
    }
    out.push(b'}');
}

/// Writes what stands in the place of a record that is not written as documented, and tells whether its time can
/// be read from it.
pub fn write_odd(out: &mut Vec<u8>, act: &Act, odd: u64) -> bool {
    let kind = odd % 6;
    match kind {
        0 => {
            out.extend_from_slice(b"\"dropped entry ");
            text::hex(out, odd, 8);
            out.push(b'"');
            return false;
        }
        1 => {
            out.extend_from_slice(b"[\"login\",");
            text::number(out, odd >> 12);
            out.push(b']');
            return false;
        }
        2 => {
            // Wrong types, but a time that can be read.
            text::key_after(out, b'{', "userId");
            text::number(out, act.user);
            text::key_after(out, b',', "success");
            out.extend_from_slice(b"\"yes\"");
            text::key_after(out, b',', "timestamp");
            out.push(b'"');
            text::time(out, act.time, act.zone);
            out.push(b'"');
        }
        3 => {
            text::key_after(out, b'{', "userId");
            act.user_id(out);
        }
        4 => {
            text::key_after(out, b'{', "userId");
            act.user_id(out);
            text::key_after(out, b',', "timestamp");
            out.extend_from_slice(b"\"a while ago\"");
        }
        _ => {
            text::key_after(out, b'{', "userId");
            act.user_id(out);
            text::key_after(out, b',', "timestamp");
            out.extend_from_slice(b"null");
        }
    }
    text::key_after(out, b',', "eventType");
    text::string(out, act.event_type);
    text::key_after(out, b',', "requestId");
    act.request_id(out);
    out.push(b'}');
    kind == 2
}
