//! A group as others see it.

use kafka_protocol::{
    messages::describe_groups_response::{DescribedGroup, DescribedGroupMember},
    protocol::StrBytes,
};

use super::group::{Group, State};

impl Group {
    /// Whether there are no members.
    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether nobody is here or about to come.
    pub(super) fn is_idle(&self) -> bool {
        self.members.is_empty() && self.expected.is_empty()
    }

    /// What kind of group it is.
    pub(super) fn protocol_type(&self) -> &str {
        &self.protocol_type
    }

    /// The state's name in the protocol.
    pub(super) fn state(&self) -> &'static str {
        match self.state {
            State::Empty => "Empty",
            State::Joining(_) => "PreparingRebalance",
            State::Syncing(_) => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }

    /// The group as an operator sees it.
    pub(super) fn describe(&self) -> DescribedGroup {
        let members = self.members.iter().map(|(id, member)| {
            DescribedGroupMember::default()
                .with_member_id(StrBytes::from_string(id.clone()))
                .with_group_instance_id(member.instance.clone().map(StrBytes::from_string))
                .with_client_id(StrBytes::from_string(member.client.clone()))
                .with_client_host(StrBytes::from_string(member.host.clone()))
                .with_member_metadata(member.metadata(&self.protocol))
                .with_member_assignment(member.assignment.clone())
        });
        DescribedGroup::default()
            .with_group_state(StrBytes::from_static_str(self.state()))
            .with_protocol_type(StrBytes::from_string(self.protocol_type.clone()))
            .with_protocol_data(self.protocol.clone())
            .with_members(members.collect())
    }
}
