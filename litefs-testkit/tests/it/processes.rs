//! Nodes in separate processes, which are killed.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use litefs_testkit::{Cluster, Control, Node};

use crate::support::{DB, LIMIT, connect, count, insert, insert_rows};

const DIR: &str = "LITEFS_TESTKIT_CHILD_DIR";

/// Not a test: the program of the process that [`spawn`] starts. Hosts a node until its standard
/// input ends.
#[test]
fn child_process_that_hosts_a_node() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let node = Node::builder("child").dir(dir).database(DB).start().expect("node");
    println!("\nurl={}", node.http_url());
    let _ = std::io::stdin().read(&mut [0]);
}

struct Process {
    child: Child,
    url: String,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path) -> Process {
    let mut child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "processes::child_process_that_hosts_a_node", "--nocapture"])
        .env(DIR, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("child");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let url = lines
        .find_map(|line| line.expect("line").strip_prefix("url=").map(str::to_owned))
        .expect("URL");
    // Keeps the pipe open, so that the child can print when it ends.
    std::thread::spawn(move || lines.for_each(drop));
    Process { child, url }
}

#[test]
fn a_cluster_spans_processes_and_survives_the_kill_of_one() {
    let root = tempfile::tempdir().expect("directory");
    let local =
        Node::builder("local").dir(root.path().join("local")).database(DB).start().expect("node");
    let mut process = spawn(&root.path().join("child"));
    let cluster = Cluster::attach([local.http_url(), process.url.clone()]).expect("attach");
    cluster.promote("local").expect("promote");
    let mut conn = connect(&local);
    diesel::connection::SimpleConnection::batch_execute(
        &mut conn,
        "CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT)",
    )
    .expect("table");
    insert_rows(&mut conn, 3);
    cluster.wait_for_sync(LIMIT).expect("sync");
    let child = cluster.control("child").expect("known");
    assert_eq!(child.position(DB), local.position(DB));
    assert_eq!(
        std::fs::read_to_string(root.path().join("child/.primary")).expect(".primary"),
        "local\n"
    );

    child.stall_replication().expect("fault");
    insert(&mut conn, "held back").expect("insert");
    assert_eq!(child.position(DB).txid + 1, local.position(DB).txid);
    child.resume_replication().expect("fault");
    cluster.wait_for_sync(LIMIT).expect("sync");

    cluster.promote("child").expect("promote");
    assert_eq!(
        std::fs::read_to_string(root.path().join("local/.primary")).expect(".primary"),
        "child\n"
    );
    assert!(insert(&mut conn, "refused").is_err());
    process.child.kill().expect("SIGKILL");
    local.wait_until(LIMIT, |status| !status.connected).expect("noticed");
    cluster.promote("local").expect("promote");
    assert_eq!(insert(&mut conn, "taken"), Ok(1));

    std::fs::write(root.path().join("child/.primary"), "stale\n")
        .expect("as a killed replica leaves it");
    let again = spawn(&root.path().join("child"));
    assert!(!root.path().join("child/.primary").exists());
    let back = Control::attach(&again.url).expect("attach");
    back.follow(&local).expect("follow");
    let at = local.position(DB);
    back.wait_until(LIMIT, |status| status.positions.get(DB) == Some(&at))
        .expect("it caught up from its files");
    assert_eq!(count(&mut conn), 5);
}

#[test]
fn two_processes_cannot_host_a_node_on_one_directory() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let root = tempfile::tempdir().expect("directory");
    let process = spawn(&root.path().join("node"));
    Control::attach(&process.url).expect("attach").become_primary().expect("makes the database");
    let error = Node::builder("other").dir(root.path().join("node")).start().expect_err("taken");
    assert!(matches!(error, litefs_testkit::Error::Io { .. }), "{error}");
}
