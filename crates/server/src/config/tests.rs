use super::*;

fn faults(change: impl FnOnce(&mut Config)) -> Vec<String> {
    let mut config = Config::default();
    change(&mut config);
    config.validate()
}

#[test]
fn the_default_is_valid_and_round_trips() {
    assert_eq!(faults(|_| {}), [""; 0]);
    let config = Config::default();
    assert_eq!(
        Config::parse("printed", &config.to_toml()).expect("what is printed is read"),
        config
    );
}

#[test]
fn every_fault_is_told_at_once() {
    let told = faults(|c| {
        c.raft.election_ticks = 2;
        c.raft.lease = Span::secs(3);
        c.raft.raft_threads = 0;
        c.pd.replicas = 2;
        c.log.level = "inof".into();
        c.server.advertise_addr = "nowhere".into();
    });
    assert_eq!(
        told,
        [
            "server.advertise-addr = \"nowhere\": wanted host:port, such as \"10.0.0.1:2379\"",
            "pd.replicas = 2: wanted 1, 3, 5 or 7",
            "log.level = \"inof\": wanted a level such as \"info\", or a filter (`inof` is not a level)",
            "raft.election-ticks = 2: wanted more than raft.heartbeat-ticks (2)",
            "raft.lease = 3s: wanted at most (raft.election-ticks - 2) * raft.tick (0ms)",
            "raft.raft-threads = 0: wanted 1 to 64",
        ]
    );
}

#[test]
fn other_machines_are_let_in_only_on_demand() {
    let open = |c: &mut Config| {
        c.server.addr = "0.0.0.0:20160".into();
        c.pd.addr = "[::]:2379".into();
        c.server.status_addr = "192.168.1.1:20180".into();
    };
    let told = faults(open);
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told.iter()
            .all(|fault| fault.contains("loopback") && fault.contains("--allow-insecure")),
        "{told:?}"
    );
    let allowed = faults(|c| {
        open(c);
        c.server.allow_insecure = true;
    });
    assert_eq!(allowed, [""; 0]);
    let local = faults(|c| {
        c.server.addr = "localhost:20160".into();
        c.pd.addr = "[::1]:2379".into();
        c.server.status_addr = String::new();
    });
    assert_eq!(local, [""; 0]);
}

#[test]
fn placement_drivers_begin_alone_or_together_or_join() {
    assert_eq!(faults(|c| c.server.role = Role::Store).len(), 1);
    assert_eq!(faults(|c| c.pd.join = vec!["127.0.0.1:2379".into()]), [""; 0]);
    let together = |cluster: &[&str]| {
        let cluster: Vec<String> = cluster.iter().map(|one| one.to_string()).collect();
        faults(move |c| c.pd.initial_cluster = cluster)
    };
    assert_eq!(
        together(&["a=127.0.0.1:2379", "b=http://127.0.0.1:3379", "c=h:4379"]),
        [""; 0]
    );
    for bad in [
        &["a=127.0.0.1:2379", "b"][..],
        &["a=127.0.0.1:2379", "a=127.0.0.1:3379"],
        &["a=127.0.0.1:2379", "b=127.0.0.1:2379"],
        &["a=127.0.0.1:3379", "b=127.0.0.1:4379"],
        &["a=127.0.0.1:2379", "b=nowhere"],
    ] {
        assert_eq!(together(bad).len(), 1, "{bad:?}");
    }
    let names = |name: &str| {
        let mut pd = Config::default().pd;
        pd.name = name.into();
        pd.initial_cluster = vec!["a=127.0.0.1:2379".into(), "b=127.0.0.1:3379".into()];
        pd.member_name("127.0.0.1:3379")
    };
    assert_eq!((names(""), names("z")), ("b".to_owned(), "z".to_owned()));
    let good = faults(|c| {
        c.server.role = Role::Store;
        c.pd.join = vec!["http://127.0.0.1:2379/".into()];
    });
    assert_eq!(good, [""; 0]);
}
