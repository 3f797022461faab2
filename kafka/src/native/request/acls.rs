//! Access rules, to and from a broker.

use std::ffi::c_char;

use rdkafka::bindings as rd;

use super::{
    AdminRequest,
    parts::{Owned, TEXT, elements},
};
use crate::{
    Error,
    native::{cstring, ffi, text},
};

/// An access rule in librdkafka's numbers, which are the protocol's for all but `kind`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) kind: i32,
    pub(crate) name: String,
    pub(crate) pattern: i32,
    pub(crate) principal: String,
    pub(crate) host: String,
    pub(crate) operation: i32,
    pub(crate) permission: i32,
}

/// A code and its reason; `None` when all went well.
pub(crate) type Failure = Option<(i32, String)>;

impl AdminRequest<'_> {
    /// Creates access rules; one result for each, in the order asked.
    pub(crate) fn create_acls(self, rules: &[Rule]) -> Result<Vec<Failure>, Error> {
        let mut owned = Vec::with_capacity(rules.len());
        for rule in rules {
            owned.push(binding(rule, &self.doing)?);
        }
        let mut raw: Vec<_> = owned.iter().map(|binding| binding.0).collect();
        // SAFETY: client, bindings, options and queue are live; the call copies what it needs.
        unsafe {
            rd::rd_kafka_CreateAcls(
                self.client.raw(),
                raw.as_mut_ptr(),
                raw.len(),
                self.options.0,
                self.queue.raw(),
            );
        }
        let event = self.answer(rd::RD_KAFKA_EVENT_CREATEACLS_RESULT)?;
        // SAFETY: the event is of this kind, so its result is too; both live through the block.
        Ok(unsafe {
            let result = rd::rd_kafka_event_CreateAcls_result(event.raw());
            let mut count = 0;
            let all = rd::rd_kafka_CreateAcls_result_acls(result, &raw mut count);
            elements(all, count)
                .map(|one| {
                    let error = rd::rd_kafka_acl_result_error(one);
                    (!error.is_null()).then(|| {
                        let reason = text(rd::rd_kafka_error_string(error));
                        (ffi::rd_kafka_error_code(error), reason)
                    })
                })
                .collect()
        })
    }

    /// Reads every access rule of the cluster.
    pub(crate) fn describe_acls(self) -> Result<Vec<Rule>, Error> {
        let mut reason = [0 as c_char; TEXT];
        // SAFETY: nulls are wildcards in a filter; the buffer is as long as stated. The filter is
        // owned by the wrapper and copied by the call; client, options and queue are live.
        unsafe {
            let filter = rd::rd_kafka_AclBindingFilter_new(
                rd::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_ANY,
                std::ptr::null(),
                rd::rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_ANY,
                std::ptr::null(),
                std::ptr::null(),
                rd::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_ANY,
                rd::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ANY,
                reason.as_mut_ptr(),
                TEXT,
            );
            if filter.is_null() {
                return Err(Error::configuration(self.doing, text(reason.as_ptr())));
            }
            let filter = Owned::new(filter, rd::rd_kafka_AclBinding_destroy);
            let (options, queue) = (self.options.0, self.queue.raw());
            rd::rd_kafka_DescribeAcls(self.client.raw(), filter.0, options, queue);
        }
        let event = self.answer(rd::RD_KAFKA_EVENT_DESCRIBEACLS_RESULT)?;
        // SAFETY: as in `create_acls`; each binding lives as long as the event and is copied.
        Ok(unsafe {
            let result = rd::rd_kafka_event_DescribeAcls_result(event.raw());
            let mut count = 0;
            let all = rd::rd_kafka_DescribeAcls_result_acls(result, &raw mut count);
            elements(all, count).map(|one| rule(one)).collect()
        })
    }
}

/// # Safety
/// `binding` is live.
unsafe fn rule(binding: *const rd::rd_kafka_AclBinding_t) -> Rule {
    // SAFETY: live by the contract; the strings live as long and are copied.
    unsafe {
        Rule {
            kind: ffi::rd_kafka_AclBinding_restype(binding),
            name: text(rd::rd_kafka_AclBinding_name(binding)),
            pattern: ffi::rd_kafka_AclBinding_resource_pattern_type(binding),
            principal: text(rd::rd_kafka_AclBinding_principal(binding)),
            host: text(rd::rd_kafka_AclBinding_host(binding)),
            operation: ffi::rd_kafka_AclBinding_operation(binding),
            permission: ffi::rd_kafka_AclBinding_permission_type(binding),
        }
    }
}

fn binding(rule: &Rule, doing: &str) -> Result<Owned<rd::rd_kafka_AclBinding_t>, Error> {
    let name = cstring(&rule.name, "resource")?;
    let (principal, host) = (cstring(&rule.principal, "principal")?, cstring(&rule.host, "host")?);
    let mut reason = [0 as c_char; TEXT];
    // SAFETY: the strings are C strings and copied; the buffer is as long as stated, and written on
    // failure, as which numbers out of range count.
    unsafe {
        let binding = ffi::rd_kafka_AclBinding_new(
            rule.kind,
            name.as_ptr(),
            rule.pattern,
            principal.as_ptr(),
            host.as_ptr(),
            rule.operation,
            rule.permission,
            reason.as_mut_ptr(),
            TEXT,
        );
        if binding.is_null() {
            return Err(Error::configuration(doing, text(reason.as_ptr())));
        }
        Ok(Owned::new(binding, rd::rd_kafka_AclBinding_destroy))
    }
}
