//! SCloud operations.

use super::kind::{Class, Kind, OTHER};
use super::{Client, Event, Problem, Resource, User};
use crate::record::field::parse;
use crate::record::scloud::{Operation, Resource as ResourceRecord};

const fn row(
    activity: u32,
    name: &'static str,
    category: &'static [&'static str],
    types: &'static [&'static str],
) -> Kind {
    Kind { event_name: "scloud.api_call", class: Class::ApiActivity, activity, activity_name: name, category, types }
}

const READS: &[&str] = &["api"];
const WRITES: &[&str] = &["api", "configuration"];

/// The verbs that API operations begin with, by what they do (OCSF API Activity).
#[rustfmt::skip]
const KINDS: [(&[&str], Kind); 4] = [
    (&["Create", "Allocate", "Add", "Apply"],       row(1, "Create", WRITES, &["creation"])),
    (&["Describe", "Get", "List", "Query"],         row(2, "Read",   READS,  &["access"])),
    (&["Modify", "Update", "Set", "Attach", "Bind",
       "Start", "Stop", "Reboot", "Resize"],        row(3, "Update", WRITES, &["change"])),
    (&["Delete", "Release", "Terminate", "Remove"], row(4, "Delete", WRITES, &["deletion"])),
];

/// An operation whose name says nothing of what it does.
const UNKNOWN: &Kind = &row(OTHER, "Other", READS, &["info"]);

/// A verb ends where a new word begins: `Setup…` is not `Set…`.
fn kind(api: &str) -> &'static Kind {
    let begins_with =
        |verb: &&str| api.strip_prefix(verb).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_lowercase()));
    KINDS.iter().find(|(verbs, _)| verbs.iter().any(begins_with)).map_or(UNKNOWN, |(_, kind)| kind)
}

/// Fills in what the record says; `None` when it is no record.
pub(super) fn fill<'a>(event: &mut Event<'a>, raw: &'a str) -> Option<()> {
    let record: Operation<'a> = parse(raw)?;
    event.action = record.api.text();
    event.kind = event.action.as_deref().map_or(UNKNOWN, kind);
    event.written_time = record.operate_time.text();
    if record.time().is_none() {
        event.problem = Some(Problem::NoTime);
    }
    event.success = record.is_success.truth();
    event.region = record.region.text();
    event.user = User { name: record.user_name.text(), email: record.user_email.text(), ..User::default() };
    event.access_key = record.access_key_id.text();
    event.client = Client::at(record.remote_ip.text());
    event.resources = record
        .related_resource
        .array()
        .into_iter()
        .flatten()
        .map(|element| match element.object() {
            Some(ResourceRecord { id, name }) => Resource { id: id.text(), name: name.text() },
            None => Resource { id: element.text(), name: None },
        })
        .filter(|resource| resource.id.is_some() || resource.name.is_some())
        .collect();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_has_its_ocsf_type_and_ecs_words() {
        let golden = [
            ("Create Allocate Add Apply", 600_301, "api configuration", "creation"),
            ("Describe Get List Query", 600_302, "api", "access"),
            ("Modify Update Set Attach Bind Start Stop Reboot Resize", 600_303, "api configuration", "change"),
            ("Delete Release Terminate Remove", 600_304, "api configuration", "deletion"),
            ("Setup Listen Address create Launch X", 600_399, "api", "info"),
        ];
        for (verbs, type_uid, category, types) in golden {
            for verb in verbs.split(' ') {
                for api in [verb.to_owned(), format!("{verb}UHostInstance"), format!("{verb}2")] {
                    let kind = kind(&api);
                    assert_eq!(kind.type_uid(), type_uid, "{api}");
                    assert_eq!(kind.category.join(" "), category, "{api}");
                    assert_eq!(kind.types.join(" "), types, "{api}");
                }
            }
        }
        for (verbs, _) in &KINDS {
            assert!(golden[..4].iter().any(|row| row.0 == verbs.join(" ")), "{verbs:?} have a golden row");
        }
        assert_eq!(kind("").type_uid(), 600_399);
    }
}
