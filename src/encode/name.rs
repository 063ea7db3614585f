//! What happened, as one low-cardinality name: OpenTelemetry's EventName, CloudEvents' `type`.

use std::borrow::Cow;

use crate::event::Source;
use crate::normalize::Event;

/// The longest name of an act that is taken from a record.
const LONGEST: usize = 64;

/// `genauth.user.login`, `scloud.api_call`. The API operation is no part of it: there are thousands.
#[must_use]
pub fn event_name(event: &Event<'_>) -> Cow<'static, str> {
    match (event.stream.identity.source, &event.action) {
        (Source::Scloud, _) => Cow::Borrowed("scloud.api_call"),
        (Source::Genauth, Some(action)) => Cow::Owned(format!("genauth.user.{}", snake(action))),
        (Source::Genauth, None) => Cow::Borrowed("genauth.user.unknown"),
    }
}

/// `unbindMFA` becomes `unbind_mfa`.
fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut after_lower = false;
    for c in name.chars().take(LONGEST) {
        if after_lower && c.is_ascii_uppercase() {
            snake.push('_');
        }
        after_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        snake.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_acts() {
        for (act, name) in [
            ("login", "login"),
            ("verifyMfa", "verify_mfa"),
            ("unbindMFA", "unbind_mfa"),
            ("refreshUserTokenBySelf", "refresh_user_token_by_self"),
            ("a b\u{4e2d}", "a_b_"),
        ] {
            assert_eq!(snake(act), name);
        }
        assert_eq!(snake(&"x".repeat(1000)).len(), LONGEST);
    }
}
