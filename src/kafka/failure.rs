//! Why something did not work with Kafka, sorted once for all.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::Context;
use crate::metrics::SinkReason;

/// Why something did not work.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The class, as metrics name it.
    pub reason: SinkReason,
    /// What happened, in the broker's or the client's own words, and what to do where that is known.
    pub message: String,
}

impl Failure {
    /// Of an error and what the client said beside it.
    #[must_use]
    pub fn new(doing: &str, error: &KafkaError, context: &Context) -> Self {
        let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
        let words = match error {
            KafkaError::Transaction(error) => error.string(),
            error => error.to_string(),
        };
        Self::of(doing, code, &words, context)
    }

    /// Of a code.
    #[must_use]
    pub fn of(doing: &str, code: Code, words: &str, context: &Context) -> Self {
        // No answer in time: what the client noticed meanwhile says why.
        let silent = matches!(reason(code), SinkReason::Connect | SinkReason::Timeout);
        let (code, why) = match context.trouble().filter(|_| silent) {
            Some((trouble, why)) => (trouble, format!("{words}: {why}")),
            None => (code, words.to_owned()),
        };
        let advice = advice(code, &why);
        Self { reason: reason(code), message: format!("cannot {doing}: {}{advice}", context.hide(&why)) }
    }
}

/// The class of a code, for metrics and for how long to wait.
fn reason(code: Code) -> SinkReason {
    match code {
        // Nobody is there, or it is not them.
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::NetworkException | Code::SSL => {
            SinkReason::Connect
        }
        Code::MessageTimedOut
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::TimedOutQueue
        | Code::PurgeQueue
        | Code::PurgeInflight => SinkReason::Timeout,
        // A password, token or certificate: they will not mend by themselves.
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState => SinkReason::Credentials,
        // A right or a topic is missing: an operator may add it at any time.
        Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTransactionTimeout
        | Code::PolicyViolation
        | Code::InvalidTopic => SinkReason::Refused,
        Code::ThrottlingQuotaExceeded => SinkReason::Throttled,
        // Another has taken our place.
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch | Code::FencedInstanceId => SinkReason::Fenced,
        // Brokers that are changing places, loading or short of replicas, and whatever else they may come to say.
        _ => SinkReason::Unavailable,
    }
}

fn advice(code: Code, why: &str) -> &'static str {
    match code {
        Code::Authentication | Code::SaslAuthenticationFailed => "; look at `sasl`: mechanism, user and password",
        Code::UnsupportedSASLMechanism => "; look at `sasl.mechanism`: the brokers do not offer it",
        // The call may have failed before the client gave the handshake's failure its own code.
        Code::SSL | Code::BrokerTransportFailure | Code::AllBrokersDown
            if why.contains("certificate verify failed") =>
        {
            "; look at `tls.ca_file`: it must hold the authority that signed the brokers' certificates"
        }
        Code::SSL => "; look at `tls`, and whether the brokers' port speaks TLS",
        // With TLS 1.3 a client takes itself for connected before the broker has looked at its certificate.
        Code::BrokerTransportFailure if why.contains("SSL alert") => {
            "; look at `tls.certificate_file`: the brokers want a certificate that an authority of theirs has signed"
        }
        Code::InvalidTransactionTimeout => {
            "; the brokers' transaction.max.timeout.ms is below `checkpoint.kafka.transaction_timeout`: lower this, or raise that"
        }
        Code::TopicAuthorizationFailed => "; the user needs the rights Describe and Write on the topic",
        Code::TransactionalIdAuthorizationFailed => {
            "; the user needs the rights Describe and Write on transactional ids that begin with `checkpoint.kafka.group`"
        }
        Code::GroupAuthorizationFailed => "; the user needs the right Read on the group `checkpoint.kafka.group`",
        Code::ClusterAuthorizationFailed => "; the user needs the right IdempotentWrite on the cluster",
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve => {
            "; look at `brokers`, and whether they can be reached from here"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::client::ClientContext;

    use super::*;

    fn context() -> Context {
        let brokers = vec!["b:1".to_owned()];
        Context::new(&crate::config::ClusterConfig { brokers, tls: None, sasl: None, properties: Default::default() })
    }

    #[test]
    fn a_call_that_was_not_answered_says_what_the_client_knows() {
        let silent = KafkaError::MetadataFetch(Code::BrokerTransportFailure);
        let context = context();
        assert_eq!(Failure::new("reach the brokers", &silent, &context).reason, SinkReason::Connect);
        context.error(KafkaError::Global(Code::Authentication), "SASL authentication failed");
        context.error(KafkaError::Global(Code::AllBrokersDown), "1/1 brokers are down");
        let failure = Failure::new("reach the brokers", &silent, &context);
        assert_eq!(failure.reason, SinkReason::Credentials);
        assert!(failure.message.contains("SASL authentication failed; look at `sasl`"), "{failure}");
        let context = self::context();
        context.error(KafkaError::Global(Code::BrokerTransportFailure), "SSL routines::certificate verify failed");
        let failure = Failure::new("reach the brokers", &silent, &context);
        assert!(failure.message.contains("look at `tls.ca_file`"), "{failure}");
        context.error(KafkaError::Global(Code::Authentication), "SASL authentication failed");
        let answered = KafkaError::MessageProduction(Code::TopicAuthorizationFailed);
        let failure = Failure::new("send", &answered, &context);
        assert_eq!(failure.reason, SinkReason::Refused, "an answer is not explained by older trouble");
        context.well();
        assert_eq!(Failure::new("reach the brokers", &silent, &context).reason, SinkReason::Connect);
    }

    #[test]
    fn every_class_has_its_codes() {
        for (code, class) in [
            (Code::Resolve, SinkReason::Connect),
            (Code::MessageTimedOut, SinkReason::Timeout),
            (Code::SaslAuthenticationFailed, SinkReason::Credentials),
            (Code::UnknownTopicOrPartition, SinkReason::Refused),
            (Code::TransactionalIdAuthorizationFailed, SinkReason::Refused),
            (Code::ThrottlingQuotaExceeded, SinkReason::Throttled),
            (Code::ProducerFenced, SinkReason::Fenced),
            (Code::NotEnoughReplicas, SinkReason::Unavailable),
            (Code::CoordinatorLoadInProgress, SinkReason::Unavailable),
        ] {
            assert_eq!(reason(code), class, "{code:?}");
        }
    }
}
