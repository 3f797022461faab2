//! Requests of consumer groups.

use kafka_protocol::{
    ResponseError,
    messages::{
        DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
        FindCoordinatorRequest, FindCoordinatorResponse, HeartbeatRequest, HeartbeatResponse,
        JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
        ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
        delete_groups_response::DeletableGroupResult, find_coordinator_response::Coordinator,
        join_group_response::JoinGroupResponseMember, leave_group_request::MemberIdentity,
        leave_group_response::MemberResponse, list_groups_response::ListedGroup,
    },
    protocol::StrBytes,
};

use crate::{
    api::{NODE, code, text},
    broker::Node,
    connection::Call,
    groups::{Join, Who},
};

const GROUP: i8 = 0;

/// The coordinator of groups is this node; there is none of transactions.
pub(super) fn coordinator(
    node: &Node,
    request: &FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let (host, port) = (text(&node.address.ip().to_string()), i32::from(node.address.port()));
    let refused = match request.key_type {
        GROUP => None,
        1 => Some((
            ResponseError::TransactionalIdAuthorizationFailed,
            "the embedded broker has no transactions: leave transactional.id unset",
        )),
        _ => Some((ResponseError::InvalidRequest, "this kind of coordinator is not known here")),
    };
    let error = refused.map_or(0, |(error, _)| error.code());
    let words = refused.map(|(_, words)| StrBytes::from_static_str(words));
    if version >= 4 {
        let coordinators = request.coordinator_keys.iter().map(|key| {
            let answer = Coordinator::default()
                .with_key(key.clone())
                .with_error_code(error)
                .with_error_message(words.clone());
            match error {
                0 => answer.with_node_id(NODE).with_host(host.clone()).with_port(port),
                _ => answer.with_node_id((-1).into()).with_port(-1),
            }
        });
        return FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
    }
    let answer = FindCoordinatorResponse::default()
        .with_error_code(error)
        .with_error_message(words.filter(|_| version >= 1));
    match error {
        0 => answer.with_node_id(NODE).with_host(host).with_port(port),
        _ => answer.with_node_id((-1).into()).with_port(-1),
    }
}

/// Joins a group; answers when the rebalance is over.
pub(super) async fn join(node: &Node, request: JoinGroupRequest, call: &Call) -> JoinGroupResponse {
    let rebalance = match call.version {
        0 => request.session_timeout_ms,
        _ => request.rebalance_timeout_ms,
    };
    let protocols = request.protocols.into_iter().map(|p| (p.name, p.metadata));
    let join = Join {
        member: request.member_id.to_string(),
        instance: request.group_instance_id.map(|instance| instance.to_string()),
        client: call.client.to_string(),
        host: format!("/{}", call.peer.ip()),
        session_ms: request.session_timeout_ms,
        rebalance_ms: rebalance,
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        id_first: call.version >= 4,
    };
    let joined = node.groups.join(&request.group_id, join).await;
    let answer = JoinGroupResponse::default()
        .with_error_code(joined.error.map_or(0, |error| error.code()))
        .with_generation_id(joined.generation)
        .with_leader(text(&joined.leader))
        .with_member_id(text(&joined.member));
    let protocol = joined.protocol.or((call.version < 7).then(StrBytes::default));
    let members = joined.members.into_iter().map(|(id, instance, metadata)| {
        JoinGroupResponseMember::default()
            .with_member_id(text(&id))
            .with_group_instance_id(instance.filter(|_| call.version >= 5).map(|i| text(&i)))
            .with_metadata(metadata)
    });
    let answer = answer.with_protocol_name(protocol).with_members(members.collect());
    if call.version >= 7 && joined.error.is_none() {
        return answer.with_protocol_type(Some(request.protocol_type));
    }
    answer
}

/// Gives a member its assignment, once the leader has made it.
pub(super) async fn sync(
    node: &Node,
    request: SyncGroupRequest,
    version: i16,
) -> SyncGroupResponse {
    let who = Who {
        member: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let assignments = request.assignments.into_iter().map(|a| (a.member_id, a.assignment));
    let done = node.groups.sync(&request.group_id, &who, assignments.collect()).await;
    let answer = SyncGroupResponse::default().with_error_code(code(&done));
    let Ok(assigned) = done else { return answer };
    let answer = answer.with_assignment(assigned);
    if version < 5 {
        return answer;
    }
    answer.with_protocol_type(request.protocol_type).with_protocol_name(request.protocol_name)
}

pub(super) fn heartbeat(node: &Node, request: &HeartbeatRequest) -> HeartbeatResponse {
    let who = Who {
        member: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let alive = node.groups.heartbeat(&request.group_id, &who);
    HeartbeatResponse::default().with_error_code(code(&alive))
}

pub(super) fn leave(node: &Node, request: &LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    let go = |member: &MemberIdentity| {
        node.groups.leave(&request.group_id, &member.member_id, member.group_instance_id.as_deref())
    };
    if version < 3 {
        let member = MemberIdentity::default().with_member_id(request.member_id.clone());
        return LeaveGroupResponse::default().with_error_code(code(&go(&member)));
    }
    let members = request.members.iter().map(|member| {
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(code(&go(member)))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

pub(super) fn list(node: &Node, request: &ListGroupsRequest, version: i16) -> ListGroupsResponse {
    let wanted = |state: &str| {
        let filter = &request.states_filter;
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(state))
    };
    let groups = node.groups.list().into_iter().filter(|(_, _, state)| wanted(state));
    let groups = groups.map(|(name, protocol_type, state)| {
        let group = ListedGroup::default()
            .with_group_id(text(&name).into())
            .with_protocol_type(text(&protocol_type));
        if version >= 4 { group.with_group_state(StrBytes::from_static_str(state)) } else { group }
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

pub(super) fn describe(
    node: &Node,
    request: &DescribeGroupsRequest,
    version: i16,
) -> DescribeGroupsResponse {
    let groups = request.groups.iter().map(|name| {
        let mut group = node.groups.describe(name).with_group_id(name.clone());
        if version < 4 {
            for member in &mut group.members {
                member.group_instance_id = None;
            }
        }
        group
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

pub(super) async fn delete(node: &Node, request: &DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::with_capacity(request.groups_names.len());
    for name in &request.groups_names {
        let deleted = match node.groups.delete(name) {
            Ok(commit) => node.offsets.durable(commit).await,
            Err(error) => Err(error),
        };
        let result = DeletableGroupResult::default().with_group_id(name.clone());
        results.push(result.with_error_code(code(&deleted)));
    }
    DeleteGroupsResponse::default().with_results(results)
}
