//! Prints encoded events made from generated records, for validators of the formats: every event type of both
//! sources, successes and failures, missing, null and mistyped fields, and texts that are no records.
//!
//! ```sh
//! cargo run --example sample_events -- ocsf 20000 | tests/ocsf/run -
//! ```

use std::io::{self, BufWriter, Write};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use trailcast::encode::{Format, encode};
use trailcast::event::{Admitted, EventId, Source, StreamContext, StreamIdentity};
use trailcast::normalize::normalize;
use trailcast::record::identify;

const USAGE: &str = "usage: sample_events ocsf|ecs|native [COUNT [SEED]]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let format: Format = serde_json::from_value(json!(arguments.first().ok_or(USAGE)?)).map_err(|_| USAGE)?;
    let count: u32 = arguments.get(1).map_or(Ok(20_000), |count| count.parse()).map_err(|_| USAGE)?;
    let seed: u64 = arguments.get(2).map_or(Ok(1), |seed| seed.parse()).map_err(|_| USAGE)?;

    let mut random = Random(seed);
    let mut output = BufWriter::new(io::stdout().lock());
    let mut line = Vec::new();
    for ordinal in 0..count {
        let source = if random.below(2) == 0 { Source::Genauth } else { Source::Scloud };
        let identity = StreamIdentity { source, tenant: "65f0c0ffee".to_owned() };
        let stream = StreamContext { identity, name: "sample".to_owned() };
        let raw = record(source, &mut random);
        let found = identify(source, &raw);
        let admitted = Admitted {
            id: EventId::new(&stream.identity, found.fingerprint, ordinal),
            ordinal,
            late: random.below(10) == 0,
            time: found.time.unwrap_or(1_700_000_000_000),
            raw: Bytes::from(raw),
        };
        line.clear();
        encode(format, random.below(2) == 0, &normalize(&stream, &admitted), &mut line);
        line.push(b'\n');
        output.write_all(&line)?;
    }
    Ok(output.flush()?)
}

/// The text of a record: most as documented, some odd in one field, some in all, some no records.
fn record(source: Source, random: &mut Random) -> String {
    let mut fields = match source {
        Source::Genauth => user_action(random),
        Source::Scloud => operation(random),
    };
    let oddness = match random.below(100) {
        0 => return (*random.of(&["", "null", "[]", "{", "\"text\"", "<html>\n</html>", "{\"a\":1} {}"])).to_owned(),
        1..=4 => 100,
        5..=29 => 15,
        _ => 0,
    };
    let names: Vec<String> = fields.keys().cloned().collect();
    for name in names {
        if random.below(100) >= oddness {
            continue;
        }
        match odd(random) {
            Some(value) => fields.insert(name, value),
            None => fields.shift_remove(&name),
        };
    }
    let record = Value::Object(fields);
    if random.below(10) == 0 { format!("{record:#}") } else { record.to_string() }
}

/// What a field may be against its documentation; `None` for missing.
fn odd(random: &mut Random) -> Option<Value> {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1.5),
        json!(u64::MAX),
        json!(""),
        json!(" "),
        json!("true"),
        json!("17"),
        json!("not what you think: \"\\\u{1}\u{2028}\n\u{1f600}"),
        json!("10.0.0.1, 192.0.2.1"),
        json!("2001:db8::7"),
        json!("张三@例子.cn"),
        json!("a@b.c"),
        json!("a@b"),
        json!("x".repeat(5_000)),
        json!([]),
        json!([1, "a", null, { "ResourceId": 7 }, [["deep"]]]),
        json!({}),
        json!({ "location": { "lat": "91", "lon": "-200.5" }, "country_code2": "china", "city_name": 5 }),
        json!({ "location": { "lat": "39.9", "lon": 116 } }),
        json!({ "name": "Firefox", "os": ["Linux"], "device": "Fridge" }),
    ];
    let at = random.below(values.len() + 1);
    values.into_iter().nth(at)
}

fn user_action(random: &mut Random) -> Map<String, Value> {
    let event_type = *random.of(&[
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
        "somethingNew",
    ]);
    let zone = *random.of(&["+0800", "+08:00", "Z", "-0330"]);
    let agents = [
        json!({ "device": "Desktop", "browser": "Chrome", "os": "Windows" }),
        json!({ "device": "Mobile", "name": "Safari", "os": "iOS" }),
        json!({ "device": "Tablet", "browser": "Chrome", "os": "Android 14" }),
        json!({ "device": "", "name": "curl", "os": "" }),
    ];
    let places = [
        json!({ "location": { "lon": 116.4, "lat": 39.9 }, "country_name": "China", "country_code2": "CN",
            "country_code3": "CHN", "region_name": "Beijing", "region_code": "BJ", "city_name": "Beijing",
            "continent_code": "AS", "timezone": "Asia/Shanghai" }),
        json!({ "location": { "lon": "-0.1", "lat": "51.5" }, "country_code2": "gb", "continent_code": "EU" }),
        json!({ "location": null, "country_name": "局域网" }),
        json!({}),
        json!(null),
    ];
    let record = json!({
        "userId": format!("62b1d0c2f6a3e45c{:08x}", random.below(1000)),
        "userAvatar": "https://files.example/a.png",
        "userDisplayName": "张三",
        "userLoginsCount": random.below(100),
        "appId": "62b1d0c2f6a3e45c9d8e7f02",
        "appName": "Console",
        "appLoginUrl": "https://console.example/login",
        "appLogo": "https://files.example/l.png",
        "clientIp": *random.of(&["203.0.113.7", "2001:db8::1", "::ffff:10.0.0.1", "10.1.2.3"]),
        "eventType": event_type,
        "eventDetail": "用户登录",
        "success": random.below(4) > 0,
        "userAgent": "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/105.0.0.0 Safari/537.36",
        "parsedUserAgent": random.of(&agents),
        "geoip": random.of(&places),
        "timestamp": format!("2022-09-20T08:{:02}:00.188{zone}", random.below(60)),
        "requestId": format!("0d4a3b52-4d0c-4c67-9a58-{:012x}", random.below(1_000_000)),
    });
    members(record)
}

fn operation(random: &mut Random) -> Map<String, Value> {
    let verb = *random.of(&[
        "Create",
        "Allocate",
        "Add",
        "Apply",
        "Describe",
        "Get",
        "List",
        "Query",
        "Modify",
        "Update",
        "Set",
        "Attach",
        "Bind",
        "Start",
        "Stop",
        "Reboot",
        "Resize",
        "Delete",
        "Release",
        "Terminate",
        "Remove",
        "Login",
        "Setup",
    ]);
    let resources: Vec<Value> = (0..random.below(4))
        .map(|number| json!({ "ResourceId": format!("uhost-{number}"), "ResourceName": "web" }))
        .collect();
    let record = json!({
        "Region": *random.of(&["cn-bj2", "hk", "sg"]),
        "Api": format!("{verb}UHostInstance"),
        "IsSuccess": random.below(4) > 0,
        "OperateTime": 1_663_635_300 + random.below(86_400),
        "UserName": "zhang",
        "UserEmail": *random.of(&["zhang@example.com", "zhang@mail.example.co.uk", "o'neil+x@example.com"]),
        "RelatedResource": resources,
        "RemoteIP": *random.of(&["203.0.113.7", "2001:db8::1", ""]),
        "AccessKeyID": format!("key-{}", random.below(3)),
    });
    members(record)
}

fn members(object: Value) -> Map<String, Value> {
    match object {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// SplitMix64: the same sample for the same seed, in every version.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % bound as u64) as usize
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }
}
