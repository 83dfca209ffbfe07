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
fn a_store_needs_a_placement_driver_and_a_placement_driver_joins_none() {
    assert_eq!(faults(|c| c.server.role = Role::Store).len(), 1);
    assert_eq!(faults(|c| c.pd.join = vec!["127.0.0.1:2379".into()]).len(), 1);
    let good = faults(|c| {
        c.server.role = Role::Store;
        c.pd.join = vec!["http://127.0.0.1:2379/".into()];
    });
    assert_eq!(good, [""; 0]);
}
