//! What a line holds: for given records exactly, for any record whatever it must.

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Format, encode};
use crate::event::{Admitted, EventId, Fingerprint, Source, StreamContext, StreamIdentity};
use crate::normalize::normalize;

const FORMATS: [Format; 3] = [Format::Ocsf, Format::Ecs, Format::Native];

fn stream(source: Source) -> StreamContext {
    StreamContext { identity: StreamIdentity { source, tenant: "t1".to_owned() }, name: "users".to_owned() }
}

fn line(format: Format, with_raw: bool, source: Source, raw: &[u8]) -> String {
    let stream = stream(source);
    let admitted = Admitted {
        id: EventId::new(&stream.identity, Fingerprint([7; 16]), 2),
        ordinal: 2,
        late: true,
        time: 1_663_635_300_188,
        raw: Bytes::copy_from_slice(raw),
    };
    let mut out = b"before".to_vec();
    encode(format, with_raw, &normalize(&stream, &admitted), &mut out);
    let line = String::from_utf8(out).expect("a line is UTF-8");
    line.strip_prefix("before").expect("a line is appended").to_owned()
}

fn event(format: Format, source: Source, raw: &Value) -> Value {
    serde_json::from_str(&line(format, false, source, raw.to_string().as_bytes())).expect("a line is JSON")
}

/// Every documented field, as documented.
fn user_action() -> Value {
    json!({
        "userId": "u1", "userAvatar": "a.png", "userDisplayName": "张三", "userLoginsCount": 17,
        "appId": "a1", "appName": "Console", "appLoginUrl": "login", "appLogo": "l.png",
        "clientIp": "203.0.113.7", "eventType": "login", "eventDetail": "bad password", "success": false,
        "userAgent": "Mozilla/5.0", "parsedUserAgent": { "device": "Desktop", "browser": "Chrome", "os": "Windows" },
        "geoip": {
            "location": { "lon": 116.4, "lat": "39.9" }, "country_name": "China", "country_code2": "cn",
            "country_code3": "CHN", "region_name": "Beijing", "region_code": "BJ", "city_name": "Beijing",
            "continent_code": "AS", "timezone": "Asia/Shanghai"
        },
        "timestamp": "2022-09-20T08:55:00.188+0800", "requestId": "r1"
    })
}

fn operation() -> Value {
    json!({
        "Region": "cn-bj2", "Api": "CreateUHostInstance", "IsSuccess": true, "OperateTime": 1_663_635_300,
        "UserName": "zhang", "UserEmail": "zhang@example.com",
        "RelatedResource": [{ "ResourceId": "uhost-a", "ResourceName": "web" }, { "ResourceId": "uhost-b" }, {}],
        "RemoteIP": "203.0.113.7", "AccessKeyID": "key-1"
    })
}

const GENAUTH_ID: &str = "1dc1de306537e1bcbb1ec2cb49306f40";
const SCLOUD_ID: &str = "72b1df407a87dfa4b1d81cc7e389fa82";

#[test]
fn a_user_action_in_ocsf() {
    let user = json!({ "uid": "u1", "display_name": "张三" });
    let golden = json!({
        "time": 1_663_635_300_188_i64, "timezone_offset": 480, "category_uid": 3, "class_uid": 3002,
        "class_name": "Authentication", "type_uid": 300_201, "activity_id": 1, "activity_name": "Logon",
        "severity_id": 2, "severity": "Low", "status_id": 2, "status": "Failure", "status_detail": "bad password",
        "message": "bad password",
        "metadata": {
            "version": "1.8.0", "uid": GENAUTH_ID, "product": { "name": "GenAuth", "vendor_name": "GenAuth" },
            "log_provider": "genauth", "log_name": "user-action-logs", "tenant_uid": "t1", "event_code": "login",
            "original_time": "2022-09-20T08:55:00.188+0800", "correlation_uid": "r1"
        },
        "user": user,
        "actor": { "user": user, "app_uid": "a1", "app_name": "Console" },
        "src_endpoint": {
            "ip": "203.0.113.7", "type_id": 2, "type": "Desktop", "os": { "name": "Windows", "type_id": 100 },
            "location": {
                "city": "Beijing", "region": "Beijing", "country": "CN", "continent": "AS", "lat": 39.9, "long": 116.4
            }
        },
        "http_request": { "user_agent": "Mozilla/5.0" },
        "service": { "uid": "a1", "name": "Console" },
        "unmapped": {
            "trailcast": { "stream": "users", "late": true, "ordinal": 2 },
            "user": { "logins_count": 17, "avatar": "a.png" },
            "app": { "logo": "l.png", "login_url": "login" },
            "browser": "Chrome",
            "geo": { "country_name": "China", "country_code3": "CHN", "region_code": "BJ", "timezone": "Asia/Shanghai" }
        }
    });
    assert_eq!(event(Format::Ocsf, Source::Genauth, &user_action()), golden);
}

#[test]
fn an_operation_in_ocsf() {
    let golden = json!({
        "time": 1_663_635_300_188_i64, "category_uid": 6, "class_uid": 6003, "class_name": "API Activity",
        "type_uid": 600_301, "activity_id": 1, "activity_name": "Create", "severity_id": 1,
        "severity": "Informational", "status_id": 1, "status": "Success",
        "metadata": {
            "version": "1.8.0", "uid": SCLOUD_ID, "product": { "name": "SCloud", "vendor_name": "SCloud" },
            "log_provider": "scloud", "log_name": "user-operation-events", "tenant_uid": "t1",
            "event_code": "CreateUHostInstance", "original_time": "1663635300", "profiles": ["cloud"]
        },
        "actor": {
            "user": {
                "name": "zhang", "email_addr": "zhang@example.com", "programmatic_credentials": [{ "uid": "key-1" }]
            }
        },
        "src_endpoint": { "ip": "203.0.113.7" },
        "api": { "operation": "CreateUHostInstance" },
        "cloud": { "provider": "ucloud", "account": { "uid": "t1" }, "region": "cn-bj2" },
        "resources": [
            { "uid": "uhost-a", "name": "web", "region": "cn-bj2" },
            { "uid": "uhost-b", "region": "cn-bj2" }
        ],
        "unmapped": { "trailcast": { "stream": "users", "late": true, "ordinal": 2 } }
    });
    assert_eq!(event(Format::Ocsf, Source::Scloud, &operation()), golden);
}

#[test]
fn a_user_action_in_ecs() {
    let golden = json!({
        "@timestamp": "2022-09-20T00:55:00.188Z",
        "ecs": { "version": "9.4.0" },
        "event": {
            "id": GENAUTH_ID, "kind": "event", "module": "genauth", "dataset": "genauth.user_action", "provider": "genauth",
            "category": ["authentication"], "type": ["start"], "action": "login", "code": "login",
            "outcome": "failure", "reason": "bad password"
        },
        "message": "bad password",
        "organization": { "id": "t1" },
        "user": { "id": "u1", "full_name": "张三" },
        "client": {
            "address": "203.0.113.7", "ip": "203.0.113.7",
            "geo": {
                "location": { "lat": 39.9, "lon": 116.4 }, "continent_code": "AS", "country_iso_code": "CN",
                "country_name": "China", "region_name": "Beijing", "region_iso_code": "CN-BJ",
                "city_name": "Beijing", "timezone": "Asia/Shanghai"
            }
        },
        "source": { "address": "203.0.113.7", "ip": "203.0.113.7" },
        "related": { "user": ["u1"], "ip": ["203.0.113.7"] },
        "user_agent": {
            "original": "Mozilla/5.0", "name": "Chrome", "device": { "name": "Desktop" }, "os": { "name": "Windows" }
        },
        "service": { "id": "a1", "name": "Console" },
        "http": { "request": { "id": "r1" } },
        "trailcast": { "stream": "users", "late": true, "ordinal": 2 },
        "genauth": {
            "user": { "avatar": "a.png", "logins_count": 17 }, "app": { "logo": "l.png", "login_url": "login" },
            "geo": { "country_code3": "CHN" }
        }
    });
    assert_eq!(event(Format::Ecs, Source::Genauth, &user_action()), golden);
}

#[test]
fn an_operation_in_ecs() {
    let golden = json!({
        "@timestamp": "2022-09-20T00:55:00.188Z",
        "ecs": { "version": "9.4.0" },
        "event": {
            "id": SCLOUD_ID, "kind": "event", "module": "scloud", "dataset": "scloud.operation",
            "provider": "scloud", "category": ["api", "configuration"], "type": ["creation"],
            "action": "CreateUHostInstance", "code": "CreateUHostInstance", "outcome": "success"
        },
        "organization": { "id": "t1" },
        "user": { "name": "zhang", "email": "zhang@example.com" },
        "client": { "address": "203.0.113.7", "ip": "203.0.113.7" },
        "source": { "address": "203.0.113.7", "ip": "203.0.113.7" },
        "related": { "user": ["zhang"], "ip": ["203.0.113.7"] },
        "cloud": { "provider": "ucloud", "region": "cn-bj2", "account": { "id": "t1" } },
        "trailcast": { "stream": "users", "late": true, "ordinal": 2 },
        "scloud": {
            "access_key_id": "key-1", "resources": [{ "id": "uhost-a", "name": "web" }, { "id": "uhost-b" }]
        }
    });
    assert_eq!(event(Format::Ecs, Source::Scloud, &operation()), golden);
}

#[test]
fn a_native_line() {
    assert_eq!(
        line(Format::Native, false, Source::Scloud, br#"{"Api":"GetX", "UserEmail":"a@b.c","OperateTime":1}"#),
        format!(
            r#"{{"id":"{SCLOUD_ID}","source":"scloud","tenant":"t1","stream":"users","time":"2022-09-20T00:55:00.188Z","late":true,"ordinal":2,"type":"GetX","actor":"a@b.c","client_ip":null,"success":null,"record":{{"Api":"GetX", "UserEmail":"a@b.c","OperateTime":1}}}}"#
        )
    );
}

#[test]
fn a_record_of_many_lines_is_one_line_with_the_same_text_otherwise() {
    let native = line(Format::Native, false, Source::Scloud, b"{\r\n  \"Api\":\n  \"a\\nb\"\n}\n");
    assert!(native.ends_with(r#""record":{  "Api":  "a\nb"}}"#), "{native}");
}

#[test]
fn what_cannot_be_read_is_delivered_with_its_text_and_the_reason() {
    for (raw, problem) in [
        ("not\njson", "not_a_record"),
        ("", "not_a_record"),
        ("[1]", "not_a_record"),
        (r#"{"eventType":"login","success":true}"#, "no_time"),
        (r#"{"timestamp":"soon"}"#, "no_time"),
    ] {
        let value = |format| -> Value {
            serde_json::from_str(&line(format, false, Source::Genauth, raw.as_bytes())).expect("a line is JSON")
        };
        let ocsf = value(Format::Ocsf);
        let class = if problem == "not_a_record" { 0 } else { 3 };
        assert_eq!(ocsf["category_uid"], class);
        assert_eq!(ocsf["status_code"], problem);
        assert!(ocsf["status_detail"].is_string());
        assert_eq!(ocsf["raw_data"], raw);
        assert_eq!(ocsf["time"], 1_663_635_300_188_i64);
        let ecs = value(Format::Ecs);
        assert_eq!(ecs["error"]["type"], problem);
        assert!(ecs["error"]["message"].is_string());
        assert_eq!(ecs["event"]["kind"], "pipeline_error");
        assert_eq!(ecs["event"]["original"], raw);
        let native = value(Format::Native);
        assert_eq!(native["error"], problem);
        let record = serde_json::from_str(raw).unwrap_or_else(|_| Value::from(raw));
        assert_eq!(native["record"], record);
    }
    let native = line(Format::Native, false, Source::Genauth, b"\xff{}");
    assert!(native.ends_with("\"record\":\"\u{fffd}{}\"}"), "{native}");
}

/// What an index of the type `ip` or `geo_point` refuses must not be in such a field: the index would refuse the
/// event.
#[test]
fn addresses_and_points_that_are_none_stand_where_any_text_may() {
    let mut record = user_action();
    record["clientIp"] = json!("10.0.0.1, 192.0.2.1");
    record["geoip"] = json!({ "location": { "lat": 91, "lon": 0 }, "continent_code": "AS" });
    let ecs = event(Format::Ecs, Source::Genauth, &record);
    assert_eq!(ecs["client"], json!({ "address": "10.0.0.1, 192.0.2.1", "geo": { "continent_code": "AS" } }));
    assert_eq!(ecs["related"].get("ip"), None);
    let ocsf = event(Format::Ocsf, Source::Genauth, &record);
    assert_eq!(ocsf["src_endpoint"]["name"], "10.0.0.1, 192.0.2.1");
    assert_eq!(ocsf["src_endpoint"].get("location"), None, "a continent alone is no OCSF location");
    assert_eq!(ocsf["unmapped"]["geo"], json!({ "continent": "AS" }));
}

#[test]
fn special_acts_have_their_ocsf_attributes() {
    let act = |event_type: &str| {
        let mut record = user_action();
        record["eventType"] = json!(event_type);
        event(Format::Ocsf, Source::Genauth, &record)
    };
    assert_eq!(act("verifyMfa")["is_mfa"], true);
    assert_eq!(act("login").get("is_mfa"), None);
    assert_eq!(act("bindMfa")["auth_factors"][0]["factor_type_id"], 0);
    assert_eq!(act("bindPhone")["user_result"]["uid"], "u1");
    assert_eq!(act("bindPhone")["activity_name"], "bindPhone", "OCSF has no word for it, so the source's stands");
    assert_eq!(act("securityResourceAccess")["web_resources"][0]["name"], "bad password");
    assert_eq!(act("neverHeardOf")["type_uid"], 300_199);
    let mut record = user_action();
    record["eventType"] = json!("securityResourceAccess");
    assert_eq!(event(Format::Ecs, Source::Genauth, &record)["event"]["type"], json!(["access", "denied"]));
}

/// All the paths to leaves, arrays counting as one.
fn paths(value: &Value, at: &str, out: &mut Vec<String>) {
    match value {
        Value::Object(members) if at != "client.geo.location" => {
            for (name, value) in members {
                paths(value, &if at.is_empty() { name.clone() } else { format!("{at}.{name}") }, out);
            }
        }
        _ => out.push(at.to_owned()),
    }
}

#[test]
fn every_ecs_field_is_one_of_the_schema_or_under_a_name_of_our_own() {
    // Of ECS 9.4.0, the fields that an event may use: copied by hand, since no package holds that version's schema.
    const FIELDS: &str = "@timestamp ecs.version message organization.id service.id service.name http.request.id \
        event.id event.kind event.module event.dataset event.provider event.category event.type event.action \
        event.code event.outcome event.reason event.original error.type error.message \
        user.id user.name user.full_name user.email related.user related.ip source.address source.ip \
        client.address client.ip client.geo.location client.geo.continent_code client.geo.country_iso_code \
        client.geo.country_name client.geo.region_name client.geo.region_iso_code client.geo.city_name \
        client.geo.timezone user_agent.original user_agent.name user_agent.device.name user_agent.os.name \
        cloud.provider cloud.region cloud.account.id";
    let mut used = Vec::new();
    for (source, record) in [
        (Source::Genauth, user_action()),
        (Source::Scloud, operation()),
        (Source::Genauth, json!({})),
        (Source::Scloud, json!([])),
    ] {
        paths(&event(Format::Ecs, source, &record), "", &mut used);
    }
    let own = |path: &str| ["genauth.", "scloud.", "trailcast."].iter().any(|prefix| path.starts_with(prefix));
    for path in used.iter().filter(|path| !own(path)) {
        assert!(FIELDS.split_whitespace().any(|field| field == path), "{path} is no ECS field");
    }
    for field in FIELDS.split_whitespace() {
        assert!(used.iter().any(|path| path == field), "{field} is never written");
    }
}

mod otel;
mod properties;
