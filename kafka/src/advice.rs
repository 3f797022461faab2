//! What a person can do about an error: which setting, which account, which access rule.

use crate::{Connection, Error};

/// What the client was for when the error came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reading as a member of a group.
    Consume,
    /// Sending.
    Produce,
    /// Asking and administering.
    Administer,
}

impl Connection {
    /// The error with a sentence on what would help, where there is one.
    pub fn explain(&self, error: &Error, purpose: Purpose) -> String {
        match self.advice(error, purpose) {
            Some(advice) => format!("{error}; {advice}"),
            None => error.to_string(),
        }
    }

    fn advice(&self, error: &Error, purpose: Purpose) -> Option<String> {
        match error {
            Error::Authentication { detail, .. } => Some(self.credentials(detail)),
            Error::Forbidden { detail, .. } => Some(self.rule(detail, purpose)),
            Error::NotFound { detail, .. } if detail.contains("opic") => {
                Some("`aion bootstrap` makes the topics of the catalog".to_owned())
            }
            // TLS 1.3: the broker refuses a client's certificate after the handshake, and says so in
            // an alert or by hanging up.
            Error::Retriable { detail, .. } if detail.contains(" alert ") => Some(format!(
                "the broker refuses the client's certificate: ssl.certificate.location ({}) has to \
                 be signed by an authority that the broker trusts",
                self.shown("ssl.certificate.location")
            )),
            _ => None,
        }
    }

    fn credentials(&self, detail: &str) -> String {
        let lower = detail.to_lowercase();
        if lower.contains("hostname mismatch") || lower.contains("ip address mismatch") {
            let name = "the brokers have to be named as in their certificate's subjectAltName";
            return format!("{name}, here {:?}", self.brokers);
        }
        if lower.contains("ssl") && lower.contains("verify failed") {
            return format!(
                "ssl.ca.location ({}) has to hold the authority that signed the broker's \
                 certificate, and that certificate has to name the address that was called ({})",
                self.shown("ssl.ca.location"),
                self.brokers
            );
        }
        format!(
            "check sasl.username ({}), sasl.password and sasl.mechanism ({}): the cluster must know \
             the account for that mechanism",
            self.shown("sasl.username"),
            self.either("sasl.mechanism", "sasl.mechanisms"),
        )
    }

    /// Which access rule is missing. The client names the kind of object in words only.
    fn rule(&self, detail: &str, purpose: Purpose) -> String {
        let (operation, object) = if detail.contains("Group authorization") {
            ("Read", "the group")
        } else if detail.contains("Cluster authorization") {
            ("what was asked", "the cluster: use an administrator's account")
        } else {
            match purpose {
                Purpose::Consume => ("Read", "the topic"),
                Purpose::Produce => ("Write", "the topic"),
                Purpose::Administer => ("Describe", "the topic"),
            }
        };
        format!(
            "{} needs the access rule {operation} on {object}; `aion bootstrap` sets the rules of the \
             catalog's accounts",
            self.principal()
        )
    }

    /// Who the cluster takes this client for, as far as it can be told from here.
    fn principal(&self) -> String {
        match (self.get("sasl.username"), self.get("ssl.certificate.location")) {
            (Some(name), _) => format!("User:{name}"),
            (None, Some(path)) => format!("the subject of certificate {path}"),
            (None, None) => "User:ANONYMOUS (no credentials are set)".to_owned(),
        }
    }

    fn get(&self, property: &str) -> Option<&str> {
        self.properties.get(property).map(String::as_str)
    }

    fn shown(&self, property: &str) -> &str {
        self.get(property).unwrap_or("not set")
    }

    fn either(&self, one: &str, other: &str) -> &str {
        self.get(one).unwrap_or_else(|| self.shown(other))
    }
}
