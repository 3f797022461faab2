//! Administration requests: each is sent, and its answer awaited, in one call.

use std::{
    ffi::{CString, c_char},
    ptr,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::bindings as rd;

use super::{
    Client, Entry, Event, PartitionList, Queue, client::outcome, cstring, ffi, list::RawElement,
    millis, text,
};
use crate::Error;

mod acls;
mod parts;

pub(crate) use self::acls::Rule;
pub(crate) use self::parts::{Description, NewTopicSpec, Setting, TopicResult};
use self::parts::{
    Owned, TEXT, description, elements, new_topic, setting, topic_resource, topic_results,
};

/// A request under way: the client, where the answer comes, and how long to wait for it.
pub(crate) struct AdminRequest<'a> {
    client: &'a Client,
    queue: Queue,
    options: Owned<rd::rd_kafka_AdminOptions_t>,
    wait: Duration,
    doing: String,
}

impl<'a> AdminRequest<'a> {
    pub(crate) fn new(
        client: &'a Arc<Client>,
        kind: rd::rd_kafka_admin_op_t,
        wait: Duration,
        doing: String,
    ) -> Result<AdminRequest<'a>, Error> {
        let queue = Queue::reply(client)?;
        let mut reason = [0 as c_char; TEXT];
        // SAFETY: the client is live; the options are owned by the wrapper; the buffer is as long
        // as stated. The timeout is in librdkafka's range (an hour at most), so setting it can't
        // fail.
        let options = unsafe {
            let options = rd::rd_kafka_AdminOptions_new(client.raw(), kind);
            let ms = millis(wait).clamp(1, 3_600_000);
            rd::rd_kafka_AdminOptions_set_request_timeout(options, ms, reason.as_mut_ptr(), TEXT);
            Owned::new(options, rd::rd_kafka_AdminOptions_destroy)
        };
        Ok(AdminRequest { client, queue, options, wait, doing })
    }

    /// Has the request sent to this broker in place of the controller.
    pub(crate) fn sent_to(self, id: i32) -> AdminRequest<'a> {
        let mut reason = [0 as c_char; TEXT];
        // SAFETY: the options are live, the buffer is as long as stated. It fails for a negative id
        // only, and then the request goes where it would have gone.
        unsafe {
            rd::rd_kafka_AdminOptions_set_broker(self.options.0, id, reason.as_mut_ptr(), TEXT);
        }
        self
    }

    /// Creates topics.
    pub(crate) fn create_topics(
        self,
        topics: &[NewTopicSpec<'_>],
    ) -> Result<Vec<TopicResult>, Error> {
        let mut owned = Vec::with_capacity(topics.len());
        for spec in topics {
            owned.push(new_topic(spec)?);
        }
        let mut raw: Vec<_> = owned.iter().map(|topic| topic.0).collect();
        // SAFETY: client, topics, options and queue are live; the call copies what it needs.
        unsafe {
            rd::rd_kafka_CreateTopics(
                self.client.raw(),
                raw.as_mut_ptr(),
                raw.len(),
                self.options.0,
                self.queue.raw(),
            );
        }
        let event = self.answer(rd::RD_KAFKA_EVENT_CREATETOPICS_RESULT)?;
        // SAFETY: the event is of this kind, so its result is too; both live through the block.
        Ok(unsafe {
            let result = rd::rd_kafka_event_CreateTopics_result(event.raw());
            let mut count = 0;
            let results = rd::rd_kafka_CreateTopics_result_topics(result, &raw mut count);
            topic_results(results, count)
        })
    }

    /// Deletes topics.
    pub(crate) fn delete_topics(self, topics: &[&str]) -> Result<Vec<TopicResult>, Error> {
        let mut owned = Vec::with_capacity(topics.len());
        for topic in topics {
            let topic = cstring(topic, "topic")?;
            // SAFETY: the name is a C string, copied; the result is owned by the wrapper.
            owned.push(unsafe {
                let topic = rd::rd_kafka_DeleteTopic_new(topic.as_ptr());
                Owned::new(topic, rd::rd_kafka_DeleteTopic_destroy)
            });
        }
        let mut raw: Vec<_> = owned.iter().map(|topic| topic.0).collect();
        // SAFETY: as in `create_topics`.
        unsafe {
            rd::rd_kafka_DeleteTopics(
                self.client.raw(),
                raw.as_mut_ptr(),
                raw.len(),
                self.options.0,
                self.queue.raw(),
            );
        }
        let event = self.answer(rd::RD_KAFKA_EVENT_DELETETOPICS_RESULT)?;
        // SAFETY: as in `create_topics`.
        Ok(unsafe {
            let result = rd::rd_kafka_event_DeleteTopics_result(event.raw());
            let mut count = 0;
            let results = rd::rd_kafka_DeleteTopics_result_topics(result, &raw mut count);
            topic_results(results, count)
        })
    }

    /// Raises the number of a topic's partitions.
    pub(crate) fn create_partitions(
        self,
        topic: &str,
        total: usize,
    ) -> Result<Vec<TopicResult>, Error> {
        let name = cstring(topic, "topic")?;
        let mut reason = [0 as c_char; TEXT];
        // SAFETY: the name is a C string, copied; the buffer is as long as stated, and written on
        // failure.
        let mut raw = unsafe {
            let buffer = reason.as_mut_ptr();
            let raw = rd::rd_kafka_NewPartitions_new(name.as_ptr(), total, buffer, TEXT);
            if raw.is_null() {
                return Err(Error::configuration(self.doing, text(reason.as_ptr())));
            }
            raw
        };
        // SAFETY: not null and owned by the wrapper from here on.
        let _owned = unsafe { Owned::new(raw, rd::rd_kafka_NewPartitions_destroy) };
        // SAFETY: as in `create_topics`.
        unsafe {
            rd::rd_kafka_CreatePartitions(
                self.client.raw(),
                &raw mut raw,
                1,
                self.options.0,
                self.queue.raw(),
            );
        }
        let event = self.answer(rd::RD_KAFKA_EVENT_CREATEPARTITIONS_RESULT)?;
        // SAFETY: as in `create_topics`.
        Ok(unsafe {
            let result = rd::rd_kafka_event_CreatePartitions_result(event.raw());
            let mut count = 0;
            let results = rd::rd_kafka_CreatePartitions_result_topics(result, &raw mut count);
            topic_results(results, count)
        })
    }

    /// Describes topics: ids and partition counts.
    pub(crate) fn describe_topics(self, topics: &[&str]) -> Result<Vec<Description>, Error> {
        let names: Vec<CString> =
            topics.iter().map(|topic| cstring(topic, "topic")).collect::<Result<_, _>>()?;
        let mut raw: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: the names are C strings, copied; the collection is owned by the wrapper and live
        // through the call, as are client, options and queue.
        unsafe {
            let all = rd::rd_kafka_TopicCollection_of_topic_names(raw.as_mut_ptr(), raw.len());
            let all = Owned::new(all, rd::rd_kafka_TopicCollection_destroy);
            let (options, queue) = (self.options.0, self.queue.raw());
            rd::rd_kafka_DescribeTopics(self.client.raw(), all.0, options, queue);
        }
        let event = self.answer(rd::RD_KAFKA_EVENT_DESCRIBETOPICS_RESULT)?;
        // SAFETY: as in `create_topics`; each description lives as long as the event and is copied.
        unsafe {
            let result = rd::rd_kafka_event_DescribeTopics_result(event.raw());
            let mut count = 0;
            let all = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
            Ok(elements(all, count).map(|topic| description(topic)).collect())
        }
    }

    /// Reads a topic's settings.
    pub(crate) fn describe_configs(self, topic: &str) -> Result<Vec<Setting>, Error> {
        let resource = topic_resource(topic)?;
        let mut raw = resource.0;
        // SAFETY: as in `create_topics`.
        unsafe {
            rd::rd_kafka_DescribeConfigs(
                self.client.raw(),
                &raw mut raw,
                1,
                self.options.0,
                self.queue.raw(),
            );
        }
        let event = self.answer(rd::RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT)?;
        // SAFETY: as in `create_topics`; entries live as long as the event and are copied.
        unsafe {
            let result = rd::rd_kafka_event_DescribeConfigs_result(event.raw());
            let mut count = 0;
            let all = rd::rd_kafka_DescribeConfigs_result_resources(result, &raw mut count);
            let mut settings = Vec::new();
            for resource in elements(all, count) {
                self.check_resource(resource)?;
                let mut count = 0;
                let entries = rd::rd_kafka_ConfigResource_configs(resource, &raw mut count);
                settings.extend(elements(entries, count).map(|entry| setting(entry)));
            }
            Ok(settings)
        }
    }

    /// Changes some of a topic's settings; a value of none takes the setting back to its default.
    pub(crate) fn alter_configs(
        self,
        topic: &str,
        changes: &[(&str, Option<&str>)],
    ) -> Result<(), Error> {
        use rd::rd_kafka_AlterConfigOpType_t as Op;
        let resource = topic_resource(topic)?;
        for (name, value) in changes {
            let name = cstring(name, "setting")?;
            let value = value.map(|value| cstring(value, "setting's value")).transpose()?;
            let (op, value) = match &value {
                Some(value) => (Op::RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET, value.as_ptr()),
                None => (Op::RD_KAFKA_ALTER_CONFIG_OP_TYPE_DELETE, ptr::null()),
            };
            // SAFETY: the resource is live, the strings C strings (or null for a deletion) and
            // copied; the error is null or ours.
            unsafe {
                let (raw, name) = (resource.0, name.as_ptr());
                let error =
                    rd::rd_kafka_ConfigResource_add_incremental_config(raw, name, op, value);
                outcome(error)
            }
            .map_err(|(code, reason)| Error::of(code, &*self.doing, reason))?;
        }
        let mut raw = resource.0;
        // SAFETY: as in `create_topics`.
        unsafe {
            rd::rd_kafka_IncrementalAlterConfigs(
                self.client.raw(),
                &raw mut raw,
                1,
                self.options.0,
                self.queue.raw(),
            );
        }
        let event = self.answer(rd::RD_KAFKA_EVENT_INCREMENTALALTERCONFIGS_RESULT)?;
        // SAFETY: as in `create_topics`.
        unsafe {
            let result = rd::rd_kafka_event_IncrementalAlterConfigs_result(event.raw());
            let mut count = 0;
            let all = rd::rd_kafka_IncrementalAlterConfigs_result_resources(result, &raw mut count);
            elements(all, count).try_for_each(|resource| self.check_resource(resource))
        }
    }

    /// Asks for offsets: each element's offset says which (-1 next, -2 first, from 0: a time in
    /// milliseconds).
    pub(crate) fn list_offsets(
        self,
        list: &PartitionList,
        committed_only: bool,
    ) -> Result<Vec<Entry>, Error> {
        use rd::rd_kafka_IsolationLevel_t as Level;
        let level = if committed_only {
            Level::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
        } else {
            Level::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
        };
        // SAFETY: client, list, options and queue are live; the list is copied; the error is null
        // or ours.
        unsafe {
            let error = rd::rd_kafka_AdminOptions_set_isolation_level(self.options.0, level);
            outcome(error).map_err(|(code, reason)| Error::of(code, &*self.doing, reason))?;
            let (options, queue) = (self.options.0, self.queue.raw());
            rd::rd_kafka_ListOffsets(self.client.raw(), list.raw(), options, queue);
        }
        let event = self.answer(rd::RD_KAFKA_EVENT_LISTOFFSETS_RESULT)?;
        // SAFETY: as in `create_topics`; elements live as long as the event and are copied.
        Ok(unsafe {
            let result = rd::rd_kafka_event_ListOffsets_result(event.raw());
            let mut count = 0;
            let all = rd::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
            elements(all, count)
                .map(|info| {
                    let partition = rd::rd_kafka_ListOffsetsResultInfo_topic_partition(info);
                    (*partition.cast::<RawElement>()).copy()
                })
                .collect()
        })
    }

    /// Waits for the answer.
    fn answer(&self, kind: i32) -> Result<Event, Error> {
        // librdkafka itself answers with a time-out after `wait`; the second on top lets it do so.
        let deadline = Instant::now() + self.wait + Duration::from_secs(1);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.queue.poll(left) {
                Some(event) if event.kind() == kind => {
                    let code = event.code();
                    if code == ffi::NO_ERROR {
                        return Ok(event);
                    }
                    return Err(Error::of(code, &*self.doing, event.reason()));
                }
                None if left.is_zero() => return Err(Error::timed_out(&*self.doing)),
                Some(_) | None => {}
            }
        }
    }

    /// # Safety
    /// `resource` is live.
    unsafe fn check_resource(
        &self,
        resource: *const rd::rd_kafka_ConfigResource_t,
    ) -> Result<(), Error> {
        // SAFETY: live by the contract; the string is copied.
        unsafe {
            let code = ffi::rd_kafka_ConfigResource_error(resource);
            if code == ffi::NO_ERROR {
                return Ok(());
            }
            let reason = text(rd::rd_kafka_ConfigResource_error_string(resource));
            Err(Error::of(code, &*self.doing, reason))
        }
    }
}
