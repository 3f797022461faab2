//! Who has which partitions of a group.

use std::time::Duration;

use rdkafka::bindings::{self as rd, rd_kafka_consumer_group_state_t as State};

use super::{AdminRequest, parts::elements};
use crate::{
    Error, TopicPartition,
    native::{Queue, cstring, ffi, list, text},
};

/// A question about a group that is out.
pub(crate) struct GroupQuestion {
    queue: Queue,
    doing: String,
}

impl AdminRequest<'_> {
    /// Asks who has which partitions of a group, and doesn't wait for the answer.
    pub(crate) fn describe_group(self, group: &str) -> Result<GroupQuestion, Error> {
        let group = cstring(group, "group")?;
        let mut raw = group.as_ptr();
        // SAFETY: the name is a C string, client, options and queue are live; the call copies what it needs.
        unsafe {
            rd::rd_kafka_DescribeConsumerGroups(
                self.client.raw(),
                &raw mut raw,
                1,
                self.options.0,
                self.queue.raw(),
            );
        }
        Ok(GroupQuestion { queue: self.queue, doing: self.doing })
    }
}

impl GroupQuestion {
    /// The answer, once there is one: what the members have, all together; `None` in it while they are still
    /// sharing it out, or there is no member.
    pub(crate) fn answer(&self) -> Option<Result<Option<Vec<TopicPartition>>, Error>> {
        let event = self.queue.poll(Duration::ZERO)?;
        if event.kind() != rd::RD_KAFKA_EVENT_DESCRIBECONSUMERGROUPS_RESULT {
            return None;
        }
        if event.code() != ffi::NO_ERROR {
            return Some(Err(Error::of(event.code(), &*self.doing, event.reason())));
        }
        // SAFETY: the event is of this kind, so its result is too; both, and the groups in it, live through the
        // block.
        unsafe {
            let result = rd::rd_kafka_event_DescribeConsumerGroups_result(event.raw());
            let mut count = 0;
            let all = rd::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
            elements(all, count).next().map(|group| self.taken(group))
        }
    }

    /// # Safety
    /// `group` is live.
    unsafe fn taken(
        &self,
        group: *const rd::rd_kafka_ConsumerGroupDescription_t,
    ) -> Result<Option<Vec<TopicPartition>>, Error> {
        // SAFETY: live by the contract; its members and their lists live as long and are copied. The state is one
        // that librdkafka made of the broker's word for it, so the enum holds it.
        unsafe {
            let error = rd::rd_kafka_ConsumerGroupDescription_error(group);
            if !error.is_null() {
                let reason = text(rd::rd_kafka_error_string(error));
                return Err(Error::of(ffi::rd_kafka_error_code(error), &*self.doing, reason));
            }
            let state = rd::rd_kafka_ConsumerGroupDescription_state(group);
            if state != State::RD_KAFKA_CONSUMER_GROUP_STATE_STABLE {
                return Ok(None);
            }
            let mut taken = Vec::new();
            for at in 0..rd::rd_kafka_ConsumerGroupDescription_member_count(group) {
                let member = rd::rd_kafka_ConsumerGroupDescription_member(group, at);
                let given = rd::rd_kafka_MemberDescription_assignment(member);
                let given = list::entries(rd::rd_kafka_MemberAssignment_partitions(given));
                taken.extend(given.into_iter().map(|entry| entry.partition));
            }
            Ok(Some(taken))
        }
    }
}
