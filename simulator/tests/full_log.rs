//! A log that clients have filled drains again by itself (LOG-2): what checkpoints need of it is out
//! of reach of commits, creates and drops.

use simulator::client::request;
use simulator::machine::{Door, Machine};
use simulator::world::{Options, Profile};

/// Databases after which the smallest log is full for sure.
const CREATES_MAX: usize = 20_000;

/// Longest simulated time in which a full log drains: checkpoints are tried again each second.
const DRAIN_NS: u64 = 30_000_000_000;

fn create(machine: &mut Machine, name: &str) -> u16 {
    let path = format!("/v1/namespaces/{name}/create");
    let bytes = request("POST", &path, "sim", &[], b"");
    machine.ask(0, Door::Admin, &bytes).expect("no end").expect("an answer").status
}

fn write(machine: &mut Machine, name: &str) -> bool {
    let path = format!("/db/{name}/v2/pipeline");
    let sql = "CREATE TABLE IF NOT EXISTS t(a)";
    let body = format!(
        "{{\"requests\":[{{\"type\":\"execute\",\"stmt\":{{\"sql\":\"{sql}\"}}}},\
         {{\"type\":\"close\"}}]}}"
    );
    let bytes = request("POST", &path, "sim", &[], body.as_bytes());
    let answer = machine.ask(1, Door::Public, &bytes).expect("no end").expect("an answer");
    answer.status == 200 && !String::from_utf8_lossy(&answer.body).contains("SQLITE_FULL")
}

/// Each database is created and written once, as fast as one caller can, until the log refuses.
#[test]
fn a_log_that_creates_have_filled_drains() {
    let mut options = Options::draw(1, Profile::Calm);
    options.create_on_first_use = false;
    options.log.segment_bytes = 1 << 20;
    options.log.segment_count = 4;
    options.log.batch_bytes_max = 64 << 10;
    // Checkpoints that crawl: nothing is freed while the log fills.
    options.faults.disk_latency_mean_ns = 20_000_000;
    let mut machine = Machine::new(options);
    machine.start().expect("it starts");
    let refused = (0..CREATES_MAX).find(|number| {
        let name = format!("d{number}");
        create(&mut machine, &name) == 503 || !write(&mut machine, &name)
    });
    let refused = refused.expect("the log is full at last");
    assert!(refused > 10, "{refused}");
    machine.pass(DRAIN_NS).expect("time passes");
    for number in 0..20 {
        let name = format!("after{number}");
        assert_eq!(create(&mut machine, &name), 200, "{name}");
        assert!(write(&mut machine, &name), "{name}");
    }
    machine.stop().expect("it stops");
}
