//! The crate's error, sorted by who can act on it.

use rdkafka::bindings::rd_kafka_resp_err_t as Code;

use crate::native::describe;

/// What went wrong, sorted by who can act: the program by trying again, the group by a new
/// assignment, or a person.
///
/// Every message says what was being done and to which object; `detail` is librdkafka's or the
/// broker's reason.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A librdkafka property that would break a guarantee was set; a person has to take it out.
    #[error("librdkafka property {property} can't be set here: {why}")]
    Refused {
        /// The property.
        property: String,
        /// What it would break, or where the value belongs instead.
        why: &'static str,
    },
    /// A setting or an argument that can't work; a person has to change it.
    #[error("{doing}: {detail}")]
    Configuration {
        /// What was being done.
        doing: String,
        /// What is wrong.
        detail: String,
    },
    /// Credentials or certificates were not accepted; librdkafka retries for ever, a person has to
    /// act.
    #[error("{doing}: authentication failed: {detail}")]
    Authentication {
        /// What was being done.
        doing: String,
        /// The reason.
        detail: String,
    },
    /// The cluster's access rules deny it.
    #[error("{doing}: not allowed: {detail}")]
    Forbidden {
        /// What was being done.
        doing: String,
        /// The reason.
        detail: String,
    },
    /// The topic, partition or group doesn't exist.
    #[error("{doing}: not found: {detail}")]
    NotFound {
        /// What was being done.
        doing: String,
        /// The reason.
        detail: String,
    },
    /// This consumer is no longer the group's owner of what it acted on; partitions come back by a
    /// new assignment.
    #[error("{doing}: no longer a member of the group in this generation: {detail}")]
    NotMember {
        /// What was being done.
        doing: String,
        /// The reason: unknown member, illegal generation, fenced, assignment lost.
        detail: String,
    },
    /// The producer's queue is full: wait for acknowledgements, then send again.
    #[error("send to {topic}: the producer's queue is full")]
    Full {
        /// The topic.
        topic: String,
    },
    /// The message is greater than the topic, or the client, takes.
    #[error("{doing}: {detail}")]
    TooLarge {
        /// What was being done.
        doing: String,
        /// The reason.
        detail: String,
    },
    /// The network, a broker or time; trying again may help.
    #[error("{doing}: {detail}")]
    Retriable {
        /// What was being done.
        doing: String,
        /// The reason.
        detail: String,
    },
    /// This instance can't go on.
    #[error("{doing}: {detail}")]
    Fatal {
        /// What was being done.
        doing: String,
        /// The reason.
        detail: String,
    },
}

impl Error {
    /// Whether doing the same again, later, may succeed without a person's help.
    pub fn is_retriable(&self) -> bool {
        matches!(self, Error::Retriable { .. } | Error::Full { .. })
    }

    /// Whether the client instance is unusable and has to be opened anew.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Error::Fatal { .. })
    }

    /// Sorts a librdkafka or broker code.
    pub(crate) fn of(code: i32, doing: impl Into<String>, detail: impl Into<String>) -> Error {
        let (doing, mut detail) = (doing.into(), detail.into());
        if detail.is_empty() {
            detail = describe(code);
        }
        match class(code) {
            Class::Authentication => Error::Authentication { doing, detail },
            Class::Forbidden => Error::Forbidden { doing, detail },
            Class::NotFound => Error::NotFound { doing, detail },
            Class::NotMember => Error::NotMember { doing, detail },
            Class::Configuration => Error::Configuration { doing, detail },
            Class::TooLarge => Error::TooLarge { doing, detail },
            Class::Fatal => Error::Fatal { doing, detail },
            Class::Retriable => Error::Retriable { doing, detail },
        }
    }

    pub(crate) fn configuration(doing: impl Into<String>, detail: impl Into<String>) -> Error {
        Error::Configuration { doing: doing.into(), detail: detail.into() }
    }

    pub(crate) fn timed_out(doing: impl Into<String>) -> Error {
        Error::Retriable { doing: doing.into(), detail: "no answer in time".into() }
    }
}

enum Class {
    Authentication,
    Forbidden,
    NotFound,
    NotMember,
    Configuration,
    TooLarge,
    Fatal,
    Retriable,
}

/// Codes that nobody sorted are retriable: the caller's retries are bounded or visible, a wrong
/// stop is an outage.
fn class(code: i32) -> Class {
    use Code::{
        RD_KAFKA_RESP_ERR__ASSIGNMENT_LOST, RD_KAFKA_RESP_ERR__AUTHENTICATION,
        RD_KAFKA_RESP_ERR__FATAL, RD_KAFKA_RESP_ERR__FENCED, RD_KAFKA_RESP_ERR__INVALID_ARG,
        RD_KAFKA_RESP_ERR__SSL, RD_KAFKA_RESP_ERR__UNKNOWN_GROUP,
        RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION, RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
        RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE, RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID, RD_KAFKA_RESP_ERR_FENCED_MEMBER_EPOCH,
        RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND,
        RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL,
        RD_KAFKA_RESP_ERR_INVALID_CONFIG, RD_KAFKA_RESP_ERR_INVALID_PARTITIONS,
        RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR, RD_KAFKA_RESP_ERR_INVALID_REQUEST,
        RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE,
        RD_KAFKA_RESP_ERR_POLICY_VIOLATION, RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED,
        RD_KAFKA_RESP_ERR_SECURITY_DISABLED, RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION,
        RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID,
        RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION,
    };
    let Ok(code) = Code::try_from(code) else {
        return Class::Retriable;
    };
    match code {
        RD_KAFKA_RESP_ERR__AUTHENTICATION
        | RD_KAFKA_RESP_ERR__SSL
        | RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED => Class::Authentication,
        RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
        | RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED
        | RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED
        | RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED => Class::Forbidden,
        RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
        | RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
        | RD_KAFKA_RESP_ERR__UNKNOWN_GROUP
        | RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
        | RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID
        | RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND => Class::NotFound,
        RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID
        | RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION
        | RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID
        | RD_KAFKA_RESP_ERR_FENCED_MEMBER_EPOCH
        | RD_KAFKA_RESP_ERR_STALE_MEMBER_EPOCH
        | RD_KAFKA_RESP_ERR__ASSIGNMENT_LOST => Class::NotMember,
        RD_KAFKA_RESP_ERR__INVALID_ARG
        | RD_KAFKA_RESP_ERR__UNSUPPORTED_FEATURE
        | RD_KAFKA_RESP_ERR_UNSUPPORTED_VERSION
        | RD_KAFKA_RESP_ERR_INVALID_CONFIG
        | RD_KAFKA_RESP_ERR_INVALID_PARTITIONS
        | RD_KAFKA_RESP_ERR_INVALID_REPLICATION_FACTOR
        | RD_KAFKA_RESP_ERR_INVALID_REQUEST
        | RD_KAFKA_RESP_ERR_OFFSET_METADATA_TOO_LARGE
        | RD_KAFKA_RESP_ERR_POLICY_VIOLATION
        | RD_KAFKA_RESP_ERR_SECURITY_DISABLED
        | RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION
        | RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL => Class::Configuration,
        RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE => Class::TooLarge,
        RD_KAFKA_RESP_ERR__FATAL | RD_KAFKA_RESP_ERR__FENCED => Class::Fatal,
        _ => Class::Retriable,
    }
}
