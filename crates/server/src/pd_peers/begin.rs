//! How a member comes to take part: alone, with others that are as new, or by joining those that are there.
//!
//! A member without data must not simply take its place in a list of members: it may have had that place before, voted there and taken
//! entries that were acknowledged, and have lost its disk since. So each data directory draws an id of its own, and members which begin
//! together take part only once all of them are there, all new, and have told their ids: these found the group. Whoever finds a group
//! that was founded without its id joins it as a new member; under the name of a member that is silent, in its place.

use std::time::Duration;

use pd::log::Stored;
use pd::{Handle, MemberId};
use proto::ferrite_pd::{EnlistRequest, HelloAnswer, HelloRequest, Member};
use tls::Dialer;
use tonic::Code;
use tracing::{info, warn};

use super::transport::connect;
use crate::config::NamedAddr;
use crate::pd_service::forward::WANTED;

/// Between rounds of asking.
const PAUSE: Duration = Duration::from_millis(200);
/// For one answer. A change of the members takes a few writes to disk.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// Rounds between two lines in the log about those who are missing.
const TELL_EVERY: u32 = 25;

/// Whom a member begins with.
#[derive(Clone, Debug)]
pub enum With {
    Nobody,
    /// All of these, itself among them.
    Founders(Vec<NamedAddr>),
    /// A group that is there, at these addresses.
    Group(Vec<String>),
}

impl With {
    /// Where others may be, as URLs.
    pub fn urls(&self, dialer: &Dialer) -> Vec<String> {
        match self {
            With::Nobody => Vec::new(),
            With::Founders(all) => all.iter().map(|one| dialer.url(&one.addr)).collect(),
            With::Group(addrs) => addrs.iter().map(|addr| dialer.url(addr)).collect(),
        }
    }
}

/// What `me`, whose directory is new, begins with. Waits for the others as long as it takes.
pub async fn begin(with: &With, me: &Member, dialer: &Dialer) -> Stored {
    let id = MemberId(me.id);
    if let With::Nobody = with {
        return Stored::founding(id, vec![me.clone()]);
    }
    for round in 0_u32.. {
        let answers = hello(&with.urls(dialer), me, dialer).await;
        if let Some(stored) = decide(with, me, &answers) {
            return stored;
        }
        if round.is_multiple_of(TELL_EVERY) {
            let missing: Vec<&String> = answers
                .iter()
                .filter(|(_, answer)| answer.is_none())
                .map(|(url, _)| url)
                .collect();
            info!(?missing, "wait for other members of the placement driver");
        }
        tokio::time::sleep(PAUSE).await;
    }
    unreachable!("it asks without end")
}

/// Asks everybody but itself.
async fn hello(urls: &[String], me: &Member, dialer: &Dialer) -> Vec<(String, Option<HelloAnswer>)> {
    let asked = urls.iter().filter(|url| !me.peer_urls.contains(url)).map(|url| async move {
        let ask = async {
            let mut client = connect(url, dialer).await.ok()?;
            let request = HelloRequest { from: Some(me.clone()) };
            Some(client.hello(request).await.ok()?.into_inner())
        };
        let answer = tokio::time::timeout(ANSWER_MAX, ask).await.ok().flatten();
        (url.clone(), answer)
    });
    futures::future::join_all(asked).await
}

/// What to begin with, if the answers tell.
fn decide(with: &With, me: &Member, answers: &[(String, Option<HelloAnswer>)]) -> Option<Stored> {
    let id = MemberId(me.id);
    let there = answers.iter().filter_map(|(_, answer)| answer.as_ref());
    if let Some(found) = there.clone().find(|answer| answer.group != 0) {
        let founders = found.founders.clone();
        return Some(match founders.iter().any(|founder| founder.id == me.id) {
            true => Stored::founding(id, founders),
            false => Stored::joining(id, found.group, founders),
        });
    }
    let With::Founders(all) = with else { return None };
    let mut founders: Vec<Member> = there.filter_map(|answer| answer.me.clone()).chain([me.clone()]).collect();
    founders.sort_by_key(|founder| founder.id);
    founders.dedup_by_key(|founder| founder.id);
    let names = |name: &str| founders.iter().filter(|founder| founder.name == name).count();
    let complete = founders.len() == all.len() && all.iter().all(|one| names(&one.name) == 1);
    complete.then(|| Stored::founding(id, founders))
}

/// Tells the leader who `me` is, until this member sees itself among the members as it is now.
pub async fn enlist(handle: Handle, group: u64, me: Member, seeds: Vec<String>, dialer: Dialer) {
    let mut told = String::new();
    loop {
        let status = handle.status();
        let known = status.member(MemberId(me.id));
        let as_it_is =
            |known: &Member| (&known.name, &known.client_urls, &known.peer_urls) == (&me.name, &me.client_urls, &me.peer_urls);
        if status.removed || known.is_some_and(as_it_is) {
            return;
        }
        let members = status.members.iter().flat_map(|member| member.peer_urls.iter());
        let mut urls: Vec<&String> = members.chain(&seeds).filter(|url| !me.peer_urls.contains(url)).collect();
        urls.sort();
        urls.dedup();
        for url in urls {
            if let Some(reason) = enlist_at(url, group, &me, &dialer).await
                && reason != told
            {
                warn!(url, reason, "become a member of the placement driver");
                told = reason;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Why not, if the one who leads says so. Asked at any member, which passes it on: who joins may know one alone, and that one need not lead.
async fn enlist_at(url: &str, group: u64, me: &Member, dialer: &Dialer) -> Option<String> {
    let mut client = connect(url, dialer).await.ok()?;
    let mut request = tonic::Request::new(EnlistRequest {
        group,
        member: Some(me.clone()),
    });
    request.metadata_mut().insert(WANTED, url.parse().ok()?);
    match tokio::time::timeout(ANSWER_MAX, client.enlist(request)).await {
        Ok(Err(status)) if status.code() != Code::Unavailable => Some(status.message().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64) -> Member {
        Member {
            id,
            name: format!("pd-{}", id % 10),
            peer_urls: vec![format!("http://127.0.0.1:{id}")],
            ..Member::default()
        }
    }

    fn founders() -> With {
        let one = |n: u64| NamedAddr {
            name: format!("pd-{n}"),
            addr: format!("127.0.0.1:{n}"),
        };
        With::Founders((1..=3).map(one).collect())
    }

    fn answer(member: Member, group: u64, founders: &[u64]) -> (String, Option<HelloAnswer>) {
        let answer = HelloAnswer {
            me: Some(member),
            group,
            founders: founders.iter().map(|&id| super::tests::member(id)).collect(),
            cluster_id: 0,
        };
        (String::new(), Some(answer))
    }

    fn silent() -> (String, Option<HelloAnswer>) {
        (String::new(), None)
    }

    #[test]
    fn founders_begin_once_all_are_there() {
        let me = member(1);
        assert_eq!(decide(&founders(), &me, &[answer(member(2), 0, &[]), silent()]), None);
        let all = [answer(member(3), 0, &[]), answer(member(2), 0, &[])];
        let begun = decide(&founders(), &me, &all).expect("all are new");
        assert_eq!(begun.snapshot.conf_state.voters, [1, 2, 3]);
        let other = decide(&founders(), &member(3), &[answer(me, 0, &[]), answer(member(2), 0, &[])]);
        assert_eq!(other.map(|other| other.identity.group), Some(begun.identity.group));
        let twice = [answer(member(12), 0, &[]), answer(member(2), 0, &[])];
        assert_eq!(
            decide(&founders(), &member(1), &twice),
            None,
            "two of one name, none of another"
        );
    }

    #[test]
    fn one_that_comes_late_founds_with_the_others() {
        let begun = decide(&founders(), &member(1), &[silent(), answer(member(2), 7, &[1, 2, 3])]);
        assert_eq!(begun.map(|begun| begun.snapshot.conf_state.voters), Some(vec![1, 2, 3]));
    }

    #[test]
    fn one_that_lost_its_data_does_not_take_its_place_again() {
        let joining = decide(&founders(), &member(11), &[silent(), answer(member(2), 7, &[1, 2, 3])]);
        let joining = joining.expect("there is a group");
        assert_eq!((joining.identity.group, joining.identity.member), (7, MemberId(11)));
        assert_eq!(joining.snapshot.conf_state.voters, Vec::<u64>::new());
        let group = With::Group(vec!["127.0.0.1:2".into()]);
        assert_eq!(decide(&group, &member(4), &[answer(member(2), 0, &[])]), None, "no group yet");
    }
}
