//! Who is a member: requests that change it, checked against the state; the group then takes the step or refuses it.

use proto::ferrite_pd::change_member::Kind;

use super::*;

/// More members make no cluster safer, and each write slower.
const MEMBERS_MAX: usize = 7;

impl<T> Machine<T> {
    /// A member tells who it is. One that is new begins as a learner; one that lost its data, and so has another id under its old name,
    /// first takes the place of the old one. It asks until it sees itself among the members.
    pub(super) fn on_enlist(&mut self, member: record::Member, token: T, effects: &mut Effects<T>) {
        match self.plan_enlist(member) {
            Ok(Some(command)) => self.propose(command, Some(token), effects),
            Ok(None) => effects.reply.push((token, Ok(Reply::Done))),
            Err(error) => effects.reply.push((token, Err(error))),
        }
    }

    fn plan_enlist(&self, member: record::Member) -> Result<Option<Command>, Error> {
        let id = MemberId(member.id);
        if id.0 == 0 || member.name.is_empty() || member.client_urls.is_empty() || member.peer_urls.is_empty() {
            let reason = "a member needs an id, a name and addresses".to_owned();
            return Err(Error::Invalid { reason });
        }
        let members = &self.state.members;
        if let Some(known) = members.get(&id) {
            let is_learner = known.is_learner;
            let member = record::Member { is_learner, ..member };
            let is_news = *known != member;
            let command = Command::PutMember(record::PutMember { member: Some(member) });
            return Ok(Some(command).filter(|_| is_news));
        }
        let namesake = members.values().find(|known| known.name == member.name);
        let (kind, member) = match namesake {
            Some(lost) => (Kind::RemoveLost, by_id(lost.id)),
            None if members.len() >= MEMBERS_MAX => {
                let reason = format!("there are {MEMBERS_MAX} already");
                return Err(Error::MembersStay { reason });
            }
            None => (Kind::AddLearner, member),
        };
        Ok(Some(change(kind, member)))
    }

    pub(super) fn on_remove_member(&mut self, member: MemberId, token: T, effects: &mut Effects<T>) {
        match self.state.members.contains_key(&member) {
            true => self.propose(change(Kind::Remove, by_id(member.0)), Some(token), effects),
            false => effects.reply.push((token, Err(Error::MemberNotFound { member }))),
        }
    }

    pub(super) fn on_transfer_leader(&mut self, to: MemberId, token: T, effects: &mut Effects<T>) {
        let outcome = match self.state.members.get(&to) {
            None => Err(Error::MemberNotFound { member: to }),
            Some(member) if member.is_learner => Err(Error::MembersStay {
                reason: "it still learns".to_owned(),
            }),
            Some(_) => {
                effects.transfer = Some(to).filter(|to| to.0 != self.member.id);
                Ok(Reply::Done)
            }
        };
        effects.reply.push((token, outcome));
    }
}

fn by_id(id: u64) -> record::Member {
    record::Member {
        id,
        ..record::Member::default()
    }
}

fn change(kind: Kind, member: record::Member) -> Command {
    Command::ChangeMember(record::ChangeMember {
        kind: kind as i32,
        member: Some(member),
    })
}
