//! Who has which partitions of a group.
//!
//! Every broker is asked for the groups that it coordinates. One of librdkafka's administration requests would ask the
//! coordinator alone, and end the whole process where that one is silent for longer than the request may take: what has
//! timed out before it was sent is given up twice (an assertion in `rd_kafka_enq_once_del_source_return`).

use std::{
    ffi::{c_char, c_int, c_void},
    mem::offset_of,
    ptr,
    time::Duration,
};

use rdkafka::bindings as rd;

use super::{Client, cstring, ffi, millis, text};
use crate::{Error, TopicPartition};

/// What `rd_kafka_list_groups` says of several brokers of which some didn't answer.
const PARTIAL: i32 = rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTIAL as i32;

/// What the members of a group have, all together; `None` while they are still sharing it out, or there is no member.
/// Waits for the answers.
pub(crate) fn taken(
    client: &Client,
    group: &str,
    wait: Duration,
) -> Result<Option<Vec<TopicPartition>>, Error> {
    let doing = || format!("ask who has the partitions of group {group}");
    let name = cstring(group, "group")?;
    let mut found = Found(ptr::null());
    // SAFETY: the client is live, the name a C string; where a list is written, it is owned from then on.
    let code = unsafe {
        ffi::rd_kafka_list_groups(client.raw(), name.as_ptr(), &raw mut found.0, millis(wait))
    };
    // A broker that is away says of no group that it is its own.
    if code != ffi::NO_ERROR && code != PARTIAL {
        return Err(Error::of(code, doing(), ""));
    }
    let mut taken = None;
    for group in found.groups() {
        if group.err != ffi::NO_ERROR {
            return Err(Error::of(group.err, doing(), ""));
        }
        if !group.is_stable() {
            continue;
        }
        let taken = taken.get_or_insert_with(Vec::new);
        for member in group.members() {
            let given = partitions(member.assignment());
            taken.extend(given.ok_or_else(|| {
                Error::configuration(
                    doing(),
                    "what a member was given isn't in the consumers' protocol",
                )
            })?);
        }
    }
    Ok(taken)
}

/// A list of groups of librdkafka's.
struct Found(*const RawList);

impl Found {
    fn groups(&self) -> &[RawGroup] {
        // SAFETY: null, or a list that lives as long as this, of as many groups as it says.
        unsafe { self.0.as_ref().map_or(&[], |list| slice(list.groups, list.count)) }
    }
}

impl Drop for Found {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: owned, and destroyed once.
            unsafe { rd::rd_kafka_group_list_destroy(self.0.cast()) }
        }
    }
}

/// As `rd_kafka_group_list`, but for the error's type: see [`ffi`].
#[repr(C)]
pub(super) struct RawList {
    groups: *const RawGroup,
    count: c_int,
}

/// As `rd_kafka_group_info`.
#[repr(C)]
struct RawGroup {
    broker: rd::rd_kafka_metadata_broker,
    name: *const c_char,
    err: i32,
    state: *const c_char,
    protocol_type: *const c_char,
    protocol: *const c_char,
    members: *const RawMember,
    count: c_int,
}

/// As `rd_kafka_group_member_info`.
#[repr(C)]
struct RawMember {
    id: *const c_char,
    client_id: *const c_char,
    host: *const c_char,
    metadata: *const c_void,
    metadata_bytes: c_int,
    assignment: *const u8,
    assignment_bytes: c_int,
}

const _: () = {
    assert!(size_of::<RawList>() == size_of::<rd::rd_kafka_group_list>());
    assert!(size_of::<RawGroup>() == size_of::<rd::rd_kafka_group_info>());
    assert!(offset_of!(RawGroup, err) == offset_of!(rd::rd_kafka_group_info, err));
    assert!(offset_of!(RawGroup, state) == offset_of!(rd::rd_kafka_group_info, state));
    assert!(offset_of!(RawGroup, members) == offset_of!(rd::rd_kafka_group_info, members));
    assert!(size_of::<RawMember>() == size_of::<rd::rd_kafka_group_member_info>());
    assert!(
        offset_of!(RawMember, assignment)
            == offset_of!(rd::rd_kafka_group_member_info, member_assignment)
    );
};

impl RawGroup {
    /// Whether everybody has what is theirs.
    fn is_stable(&self) -> bool {
        // SAFETY: null, or a C string that lives as long as the group.
        unsafe { text(self.state) == "Stable" }
    }

    fn members(&self) -> &[RawMember] {
        // SAFETY: it has so many members, which live as long as it.
        unsafe { slice(self.members, self.count) }
    }
}

impl RawMember {
    fn assignment(&self) -> &[u8] {
        // SAFETY: it has so many bytes, which live as long as it.
        unsafe { slice(self.assignment, self.assignment_bytes) }
    }
}

/// # Safety
/// `first` is null, or the first of `count` elements that live as long as the result is used.
unsafe fn slice<'a, T>(first: *const T, count: c_int) -> &'a [T] {
    match usize::try_from(count) {
        // SAFETY: by the contract.
        Ok(count) if !first.is_null() => unsafe { std::slice::from_raw_parts(first, count) },
        _ => &[],
    }
}

/// The partitions in an assignment as the consumers' protocol writes it: a version, each topic with its numbers, and what
/// is the assignor's own. A member that was given nothing may have no bytes at all.
fn partitions(mut bytes: &[u8]) -> Option<Vec<TopicPartition>> {
    let mut all = Vec::new();
    if bytes.is_empty() {
        return Some(all);
    }
    let rest = &mut bytes;
    int16(rest)?;
    for _ in 0..int32(rest)? {
        let length = usize::try_from(int16(rest)?).ok()?;
        let topic = std::str::from_utf8(rest.split_off(..length)?).ok()?;
        for _ in 0..int32(rest)? {
            all.push(TopicPartition::new(topic, int32(rest)?));
        }
    }
    Some(all)
}

fn int16(rest: &mut &[u8]) -> Option<i16> {
    rest.split_off(..2)?.try_into().ok().map(i16::from_be_bytes)
}

fn int32(rest: &mut &[u8]) -> Option<i32> {
    rest.split_off(..4)?.try_into().ok().map(i32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_is_read() {
        let two =
            b"\0\x03\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\0\0\0\0\x07\0\x02bc\0\0\0\x01\0\0\0\x01";
        let expected = vec![
            TopicPartition::new("a", 0),
            TopicPartition::new("a", 7),
            TopicPartition::new("bc", 1),
        ];
        assert_eq!(partitions(two).as_ref(), Some(&expected));
        assert_eq!(
            partitions(&[&two[..], b"\0\0\0\x02of the assignor's"].concat()),
            Some(expected)
        );
        for end in 1..two.len() {
            assert_eq!(partitions(&two[..end]), None, "{end}");
        }
        assert_eq!(partitions(b""), Some(Vec::new()));
        assert_eq!(partitions(b"\0\0\0\0\0\0\xff\xff\xff\xff"), Some(Vec::new()));
        // Lengths that nothing has.
        assert_eq!(partitions(b"\0\0\x7f\xff\xff\xff"), None);
        assert_eq!(partitions(b"\0\0\0\0\0\x01\xff\xffa"), None);
    }
}
