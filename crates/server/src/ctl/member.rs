//! `member`: who the members of the placement driver are, and changes of them.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use base::MonoTime;
use client::RawClient;
use proto::ferrite_pd::pd_peers_client::PdPeersClient;
use proto::ferrite_pd::{MembersRequest, RemoveMemberRequest, TransferLeaderRequest};
use proto::pdpb::{GetMembersResponse, Member};
use serde_json::json;
use tonic::Code;
use tonic::transport::Channel;

use super::output::Output;
use crate::pd_peers::connect;

/// Between two looks at who leads.
const PAUSE: Duration = Duration::from_millis(100);

/// List the members of the placement driver, or change them. A member is added by starting it: `ferrite server --role pd --join ..`.
#[derive(Debug, clap::Args)]
pub struct MemberArgs {
    #[command(subcommand)]
    act: Option<Act>,
}

#[derive(Debug, clap::Subcommand)]
enum Act {
    /// List them, which is also done without a command. A learner does not vote yet.
    List,
    /// Take a member out for good; it hands over first if it leads. A majority of the others must run.
    Remove {
        /// Name or id.
        member: String,
        /// Really do it.
        #[arg(long)]
        yes: bool,
    },
    /// Have a member lead.
    TransferLeader {
        /// Name or id.
        member: String,
    },
}

/// Runs the command; `time` bounds a change.
pub async fn run(client: &RawClient, out: &mut Output<impl Write>, args: &MemberArgs, time: Duration) -> anyhow::Result<bool> {
    let deadline = MonoTime::now() + time;
    match &args.act {
        None | Some(Act::List) => list(client, out).await,
        Some(Act::Remove { member, yes }) => {
            let Some(member) = find(&client.pd().members().await?, member) else {
                return Ok(false);
            };
            if !yes {
                bail!("removing {} cannot be undone: say --yes to do it", member.name);
            }
            remove(client, &member, deadline).await?;
            eprintln!("removed {}; its data directory is of no use any more", member.name);
            Ok(true)
        }
        Some(Act::TransferLeader { member }) => {
            let Some(member) = find(&client.pd().members().await?, member) else {
                return Ok(false);
            };
            transfer(client, &member, deadline).await?;
            eprintln!("{} leads", member.name);
            Ok(true)
        }
    }
}

async fn list(client: &RawClient, out: &mut Output<impl Write>) -> anyhow::Result<bool> {
    let answer = client.pd().members().await?;
    let leads = answer.leader.map_or(0, |leader| leader.member_id);
    let learners = learners(client).await?;
    let rows = answer.members.iter().map(|member| {
        let role = match member.member_id {
            id if id == leads => "leader",
            id if learners.contains(&id) => "learner",
            _ => "follower",
        };
        vec![
            ("id", member.member_id.into()),
            ("name", member.name.as_str().into()),
            ("role", role.into()),
            ("urls", json!(member.client_urls)),
        ]
    });
    out.table(rows.collect())?;
    Ok(true)
}

/// Ids of members that do not vote yet, as the leader knows; none while nobody leads.
async fn learners(client: &RawClient) -> anyhow::Result<Vec<u64>> {
    let cluster_id = client.pd().cluster_id();
    let Some((mut link, _)) = leader(client).await? else {
        return Ok(Vec::new());
    };
    match link.list_members(MembersRequest { cluster_id }).await {
        Ok(answer) => {
            let learners = answer.into_inner().members.into_iter().filter(|member| member.is_learner);
            Ok(learners.map(|member| member.id).collect())
        }
        // A leader of an earlier version does not tell.
        Err(status) if matches!(status.code(), Code::Unimplemented | Code::Unavailable) => Ok(Vec::new()),
        Err(status) => bail!("{}", status.message()),
    }
}

/// The member of a name or an id; what does not exist is a no, not an error.
fn find(members: &GetMembersResponse, wanted: &str) -> Option<Member> {
    let is_it = |member: &&Member| member.name == wanted || member.member_id.to_string() == wanted;
    let found = members.members.iter().find(is_it).cloned();
    if found.is_none() {
        eprintln!("there is no member {wanted}");
    }
    found
}

/// A link to the leader, and its id.
pub(super) async fn leader(client: &RawClient) -> anyhow::Result<Option<(PdPeersClient<Channel>, u64)>> {
    let Some(leader) = client.pd().members().await?.leader else {
        return Ok(None);
    };
    let url = leader.client_urls.first().context("the leader has no address")?;
    let link = connect(url, client.pd().dialer())
        .await
        .with_context(|| format!("connect to the leader at {url}"))?;
    Ok(Some((link, leader.member_id)))
}

async fn transfer(client: &RawClient, to: &Member, deadline: MonoTime) -> anyhow::Result<()> {
    let cluster_id = client.pd().cluster_id();
    let mut asked = 0;
    while MonoTime::now() < deadline {
        if let Some((mut link, leads)) = leader(client).await? {
            if leads == to.member_id {
                return Ok(());
            }
            // Once to each leader: the same one is given time.
            if leads != asked {
                let member_id = to.member_id;
                let answer = link.transfer_leader(TransferLeaderRequest { cluster_id, member_id }).await;
                if passes(answer)? {
                    asked = leads;
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("{} does not lead yet; see `ferrite ctl member`", to.name)
}

async fn remove(client: &RawClient, member: &Member, deadline: MonoTime) -> anyhow::Result<()> {
    let cluster_id = client.pd().cluster_id();
    while MonoTime::now() < deadline {
        let all = client.pd().members().await?;
        if all.members.iter().all(|one| one.member_id != member.member_id) {
            return Ok(());
        }
        let leads = all.leader.as_ref().is_some_and(|leader| leader.member_id == member.member_id);
        if leads {
            let other = all.members.iter().find(|one| one.member_id != member.member_id);
            let other = other.context("it is the only member")?;
            transfer(client, other, deadline).await?;
        }
        if let Some((mut link, _)) = leader(client).await? {
            let member_id = member.member_id;
            passes(link.remove_member(RemoveMemberRequest { cluster_id, member_id }).await)?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    bail!("{} is a member still; see `ferrite ctl member`", member.name)
}

/// Whether it was done; not yet, if another member leads by now. Other refusals are errors.
pub(super) fn passes<T>(answer: Result<T, tonic::Status>) -> anyhow::Result<bool> {
    match answer {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::Unavailable => Ok(false),
        Err(status) => bail!("{}", status.message()),
    }
}
