//! `rule`: how many copies of which kind the regions of a range have, and on which stores.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use client::RawClient;
use proto::ferrite_pd::label_constraint::Op;
use proto::ferrite_pd::placement_rule::Role;
use proto::ferrite_pd::schedule::Kind;
use proto::ferrite_pd::{CheckRulesRequest, LabelConstraint, PlacementRule, RuleName, SchedulingRequest};
use serde_json::{Value, json};

use super::output::Output;
use super::schedule::{asked, change};
use super::text::Form;

/// Regions looked at with one question, and faults printed.
const LOOK: u32 = 5000;
const FAULTS_MAX: usize = 1000;

/// Say how many copies of which kind the regions of a range have, and on which stores.
#[derive(Debug, clap::Subcommand)]
pub enum RuleAct {
    /// List the rules. `pd/default` holds where no other asks for copies that vote.
    List,
    Set(SetArgs),
    /// Drop a rule.
    Remove {
        /// Group and id, parted by `/`.
        name: String,
    },
    /// List regions that are not as the rules want them; exit code 1 if there are any.
    Check,
}

/// Make a rule, or replace the one of the same name.
#[derive(Debug, clap::Args)]
pub struct SetArgs {
    /// Group and id, parted by `/`.
    name: String,
    /// What the copies are.
    #[arg(long, default_value = "voter")]
    role: RoleName,
    /// How many of them.
    #[arg(long, default_value_t = 3)]
    count: u32,
    /// First key of the range, in the form in which raw keys lie; without it the range has no beginning.
    #[arg(long, value_name = "KEY")]
    start: Option<String>,
    /// Key behind the range; without it the range has no end.
    #[arg(long, value_name = "KEY")]
    end: Option<String>,
    /// What labels of a store must be: `zone=z1,z2` one of these, `zone!=z1` none of these, `zone` there, `!zone` not there. May be given
    /// several times.
    #[arg(long = "constraint", value_name = "LABEL", value_parser = constraint, allow_hyphen_values = true)]
    constraints: Vec<LabelConstraint>,
    /// Labels by which the rule's copies are kept apart, instead of the cluster's.
    #[arg(long, value_delimiter = ',')]
    location_labels: Vec<String>,
    /// Order within the group.
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    index: i32,
    /// Earlier rules of the group do not count where this one does.
    #[arg(long = "override")]
    overrides: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RoleName {
    Voter,
    Leader,
    Follower,
    Learner,
}

impl RoleName {
    fn role(self) -> Role {
        match self {
            RoleName::Voter => Role::Voter,
            RoleName::Leader => Role::Leader,
            RoleName::Follower => Role::Follower,
            RoleName::Learner => Role::Learner,
        }
    }
}

/// Reads a constraint.
pub(super) fn constraint(text: &str) -> Result<LabelConstraint, String> {
    let values = |values: &str| values.split(',').map(str::to_owned).collect::<Vec<_>>();
    let (key, op, values) = match (text.split_once("!="), text.split_once('='), text.strip_prefix('!')) {
        (Some((key, list)), ..) => (key, Op::NotIn, values(list)),
        (_, Some((key, list)), _) => (key, Op::In, values(list)),
        (.., Some(key)) => (key, Op::NotExists, Vec::new()),
        _ => (text, Op::Exists, Vec::new()),
    };
    if key.is_empty() || values.iter().any(String::is_empty) {
        return Err("wanted zone=z1,z2 or zone!=z1 or zone or !zone".to_owned());
    }
    Ok(LabelConstraint {
        key: key.to_owned(),
        op: op as i32,
        values,
    })
}

/// The text of which [`constraint`] makes it.
pub(super) fn constraint_text(constraint: &LabelConstraint) -> String {
    let (key, values) = (&constraint.key, constraint.values.join(","));
    match constraint.op() {
        Op::In => format!("{key}={values}"),
        Op::NotIn => format!("{key}!={values}"),
        Op::Exists => key.clone(),
        Op::NotExists => format!("!{key}"),
    }
}

fn name(text: &str) -> anyhow::Result<(String, String)> {
    let (group, id) = text
        .split_once('/')
        .with_context(|| format!("{text} is no rule: wanted GROUP/ID"))?;
    Ok((group.to_owned(), id.to_owned()))
}

/// Runs `rule`; `time` bounds a change.
pub async fn run(client: &RawClient, out: &mut Output<impl Write>, act: &RuleAct, time: Duration) -> anyhow::Result<bool> {
    match act {
        RuleAct::List => list(client, out).await,
        RuleAct::Set(args) => {
            let rule = rule(client, out.form, args)?;
            change(client, Kind::PutRule(rule), time).await
        }
        RuleAct::Remove { name: text } => {
            let (group, id) = name(text)?;
            change(client, Kind::DropRule(RuleName { group, id }), time).await
        }
        RuleAct::Check => check(client, out).await,
    }
}

fn rule(client: &RawClient, form: Form, args: &SetArgs) -> anyhow::Result<PlacementRule> {
    let border = |key: &Option<String>| match key {
        None => Ok(Default::default()),
        Some(key) => form.parse(key).map(|key| client.border(key)),
    };
    let (group, id) = name(&args.name)?;
    Ok(PlacementRule {
        group,
        id,
        start_key: border(&args.start)?,
        end_key: border(&args.end)?,
        role: args.role.role() as i32,
        count: args.count,
        constraints: args.constraints.clone(),
        location_labels: args.location_labels.clone(),
        index: args.index,
        overrides: args.overrides,
    })
}

async fn list(client: &RawClient, out: &mut Output<impl Write>) -> anyhow::Result<bool> {
    let cluster_id = client.pd().cluster_id();
    let answer = asked(client, |mut link| async move {
        link.get_scheduling(SchedulingRequest { cluster_id }).await
    })
    .await?;
    let form = out.form;
    let border = |key: &[u8]| if key.is_empty() { Value::Null } else { form.print(key).into() };
    let rows = answer.rules.iter().map(|rule| {
        let constraints: Vec<String> = rule.constraints.iter().map(constraint_text).collect();
        vec![
            ("rule", format!("{}/{}", rule.group, rule.id).into()),
            ("start", border(&rule.start_key)),
            ("end", border(&rule.end_key)),
            ("role", rule.role().as_str_name().to_lowercase().into()),
            ("count", rule.count.into()),
            ("constraints", json!(constraints)),
            ("location_labels", json!(rule.location_labels)),
            ("index", rule.index.into()),
            ("override", rule.overrides.into()),
        ]
    });
    out.table(rows.collect())?;
    Ok(true)
}

/// Looks at all regions, some thousands at a time, as the placement driver has others to serve.
async fn check(client: &RawClient, out: &mut Output<impl Write>) -> anyhow::Result<bool> {
    let (cluster_id, mut start_key, mut regions, mut faults) = (client.pd().cluster_id(), Default::default(), 0, Vec::new());
    loop {
        let request = CheckRulesRequest {
            cluster_id,
            start_key,
            limit: LOOK,
        };
        let answer = asked(client, |mut link| async move { link.check_rules(request).await }).await?;
        regions += answer.regions;
        faults.extend(answer.faults);
        if answer.next_key.is_empty() || faults.len() > FAULTS_MAX {
            break;
        }
        start_key = answer.next_key;
    }
    if faults.len() > FAULTS_MAX {
        bail!("more than {FAULTS_MAX} of the first {regions} regions are not as rules want them");
    }
    let rows = faults
        .iter()
        .map(|fault| vec![("region", fault.region_id.into()), ("fault", fault.fault.as_str().into())]);
    out.table(rows.collect())?;
    if faults.is_empty() {
        eprintln!("all {regions} regions are as rules want them");
    }
    Ok(faults.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constraints_are_read_and_printed() {
        for text in ["zone=z1", "zone=z1,z2", "zone!=z1", "zone", "!zone"] {
            let read = constraint(text).expect(text);
            assert_eq!(constraint_text(&read), text);
        }
        for bad in ["", "=z1", "zone=", "zone=z1,", "!"] {
            assert!(constraint(bad).is_err(), "{bad}");
        }
    }
}
