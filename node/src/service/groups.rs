//! Consumer groups: a member's session, and the calls of operators. Any node accepts an operator's call and
//! forwards it to the group's coordinator. A member must connect to the coordinator itself.

use ropewalk_proto::error::{ErrorCode, WireError};
use ropewalk_proto::ids::GROUPS_TOPIC;
use ropewalk_proto::v1;
use ropewalk_proto::v1::{group_request, group_response};

use super::Api;
use super::forward::{OtherNode, Route, answer, marked};
use crate::coordinator::Session;

impl Api<'_> {
    /// Begins a member's session with its first request. The error names the coordinator if another node is it.
    pub async fn join_group(
        &self,
        request: Option<group_request::Kind>,
    ) -> Result<(Session, v1::Assignment), v1::Error> {
        let Some(group_request::Kind::Join(join)) = request else {
            let error = WireError::new(
                ErrorCode::InvalidRequest,
                "session has not joined a group; send a join request first",
            );
            return Err(error.into());
        };
        let coordinator = &self.serving.coordinator;
        let group = join.group.clone();
        let joined = async {
            let mut session = coordinator.join(join).await?;
            let assignment = session.assignment()?;
            Ok::<_, WireError>((session, assignment))
        };
        match joined.await {
            Ok(joined) => Ok(joined),
            Err(error) => match coordinator.home(&group).await {
                Ok(home) => Err(self.refusal(GROUPS_TOPIC, home.partition, error)),
                Err(_) => Err(error.into()),
            },
        }
    }

    /// Carries out a request of a member in its session. Each request counts as a heartbeat.
    pub async fn in_session(
        &self,
        session: &mut Session,
        request: Option<group_request::Kind>,
    ) -> Result<group_response::Kind, v1::Error> {
        let answered = carry_out(session, request).await;
        answered.map_err(|error| self.session_error(session, error))
    }

    /// Converts an error of a session. It names the coordinator if another node is it now.
    pub fn session_error(&self, session: &Session, error: WireError) -> v1::Error {
        self.refusal(GROUPS_TOPIC, session.home().partition, error)
    }

    /// Lists groups: those of this node, or all.
    pub async fn list_groups(
        &self,
        request: v1::ListGroupsRequest,
    ) -> Result<v1::ListGroupsResponse, WireError> {
        let coordinator = &self.serving.coordinator;
        let groups = match request.local {
            true => coordinator.list_here(),
            false => coordinator.list().await?,
        };
        Ok(v1::ListGroupsResponse { groups })
    }

    /// Describes a group.
    pub async fn describe_group(
        &self,
        request: v1::DescribeGroupRequest,
        route: Route,
    ) -> Result<v1::GroupInfo, WireError> {
        match self.other_coordinator(&request.group, route).await? {
            Some(mut other) => answer(other.describe_group(marked(request)).await),
            None => self.serving.coordinator.describe(&request.group).await,
        }
    }

    /// Returns the lag of a group.
    pub async fn group_lag(
        &self,
        request: v1::GroupLagRequest,
        route: Route,
    ) -> Result<v1::GroupLagResponse, WireError> {
        match self.other_coordinator(&request.group, route).await? {
            Some(mut other) => answer(other.group_lag(marked(request)).await),
            None => self.serving.coordinator.lag(&request.group).await,
        }
    }

    /// Moves the committed offsets of a group without members.
    pub async fn seek_group(
        &self,
        request: v1::SeekGroupRequest,
        route: Route,
    ) -> Result<v1::SeekGroupResponse, WireError> {
        self.note_routed_change("SeekGroup", &request.group, route);
        match self.other_coordinator(&request.group, route).await? {
            Some(mut other) => answer(other.seek_group(marked(request)).await),
            None => {
                let positions = self.serving.coordinator.seek(&request).await?;
                Ok(v1::SeekGroupResponse { positions })
            }
        }
    }

    /// Deletes a group without members.
    pub async fn delete_group(
        &self,
        request: v1::DeleteGroupRequest,
        route: Route,
    ) -> Result<v1::DeleteGroupResponse, WireError> {
        self.note_routed_change("DeleteGroup", &request.group, route);
        match self.other_coordinator(&request.group, route).await? {
            Some(mut other) => answer(other.delete_group(marked(request)).await),
            None => {
                self.serving.coordinator.delete(&request.group).await?;
                Ok(v1::DeleteGroupResponse {})
            }
        }
    }

    /// Returns the group's coordinator if that is another node. A forwarded call is not forwarded again.
    async fn other_coordinator(
        &self,
        group: &str,
        route: Route,
    ) -> Result<Option<OtherNode>, WireError> {
        if route == Route::Here {
            return Ok(None);
        }
        let serving = self.serving;
        let home = serving.coordinator.home(group).await?;
        let leader = serving.leader(GROUPS_TOPIC, home.partition);
        let other = leader.filter(|node| node.node_id != serving.cluster.node_id().0);
        Ok(other.map(|node| OtherNode::new(serving.peers.channel(&node.address))))
    }
}

async fn carry_out(
    session: &mut Session,
    request: Option<group_request::Kind>,
) -> Result<group_response::Kind, WireError> {
    use group_request::Kind;
    session.heartbeat()?;
    let done = group_response::Kind::Done(v1::GroupDone {});
    match request {
        Some(Kind::Heartbeat(_)) => Ok(done),
        Some(Kind::Commit(commit)) => session
            .commit(commit)
            .await
            .map(group_response::Kind::Committed),
        Some(Kind::Release(release)) => session.release(release).await.map(|()| done),
        Some(Kind::Leave(_)) => session.leave().await.map(|()| done),
        Some(Kind::Join(_)) => Err(WireError::new(
            ErrorCode::InvalidRequest,
            "member has already joined its group; open another stream for another session",
        )),
        None => Err(WireError::new(
            ErrorCode::UnsupportedVersion,
            "request kind is unknown to this node; upgrade the node",
        )),
    }
}
