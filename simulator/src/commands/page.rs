//! `simulator report`: the course of one world as a page that needs nothing but a browser.
//!
//! The page is `page.html` with the recording put into it as JSON. When the page has drawn, the
//! attribute `data-drawn` of its root says how many samples it drew; a check in a headless browser
//! waits for that.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Value, json};
use simulator::faults::FaultKind;
use simulator::recorder::{Recording, Sample};
use simulator::settings::Settings as _;
use simulator::world::{self, Options, Profile, Watch};
use storage::ledger::KIND_NAMES;

use super::Choice;
use super::tally::group_of;

/// What `--help` ends with.
pub const EXAMPLES: &str = "Examples:
  simulator report 42 --profile drawn
  simulator report 42 --out failing.html       then open it in a browser";

const TEMPLATE: &str = include_str!("page.html");

/// Where the recording goes in the template.
const PLACE: &str = "/*DATA*/";

#[derive(Debug, clap::Args)]
pub struct Report {
    #[command(flatten)]
    choice: Choice,
    /// The file to write.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
}

/// How a world ended, for the page.
struct End {
    property: Option<String>,
    detail: String,
    events: u64,
    hash: String,
}

thread_local! {
    /// The recording in hand, where a panic's hook finds it.
    static RECORDING: RefCell<Option<Rc<RefCell<Recording>>>> = const { RefCell::new(None) };
}

/// Run the world and write its page. A world that fails is drawn as well as one that passes.
pub fn run(report: &Report) -> Result<bool, String> {
    let options = report.choice.options()?;
    let recording = Rc::new(RefCell::new(Recording::default()));
    RECORDING.set(Some(Rc::clone(&recording)));
    draw_panics(&options, &report.out);
    let watch = Watch { recording: Some(Rc::clone(&recording)), ..Watch::default() };
    let outcome = world::run_watched(options.clone(), watch);
    println!("{}", outcome.line());
    let end = End {
        property: outcome.violation.as_ref().map(|violation| violation.property.to_string()),
        detail: outcome.violation.as_ref().map_or_else(String::new, |v| v.detail.clone()),
        events: outcome.events,
        hash: format!("{:016x}", outcome.hash),
    };
    write(&report.out, &options, &recording.borrow(), &end)?;
    Ok(outcome.violation.is_none())
}

fn write(path: &Path, options: &Options, recording: &Recording, end: &End) -> Result<(), String> {
    let page = page(options, recording, end);
    let written = std::fs::write(path, page);
    written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    println!("{} samples in {}", recording.samples.len(), path.display());
    Ok(())
}

/// A panic ends the process where it stands: draw what was recorded until then.
fn draw_panics(options: &Options, path: &Path) {
    let (options, path) = (options.clone(), path.to_owned());
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        previous(panic);
        let recording = RECORDING.with_borrow(Clone::clone);
        let Some(recording) = recording else { return };
        let Ok(recording) = recording.try_borrow() else { return };
        let Some(last) = recording.samples.last() else { return };
        let end = End {
            property: Some("PANIC".to_owned()),
            detail: panic.to_string(),
            events: last.event,
            hash: "unknown".to_owned(),
        };
        if let Err(text) = write(&path, &options, &recording, &end) {
            eprintln!("simulator: {text}");
        }
    }));
}

fn page(options: &Options, recording: &Recording, end: &End) -> String {
    // A script element ends at the first `</`, whatever stands around it.
    let data = data(options, recording, end).to_string().replace("</", "<\\/");
    assert_eq!(TEMPLATE.matches(PLACE).count(), 1);
    TEMPLATE.replace(PLACE, &data)
}

fn data(options: &Options, recording: &Recording, end: &End) -> Value {
    let calm = Options::draw(options.seed, Profile::Calm).faults.values();
    let shown: Vec<Value> = options
        .values()
        .into_iter()
        .map(|(name, value)| {
            let quiet = calm.iter().find(|(other, _)| *other == name).map(|(_, value)| value);
            let noisy = quiet.is_some_and(|quiet| *quiet != value);
            json!([name, value, noisy])
        })
        .collect();
    let moments = recording.moments.iter();
    let moments: Vec<Value> =
        moments.map(|moment| json!([moment.event, moment.at.0, moment.text])).collect();
    let groups: Vec<&str> = FaultKind::ALL.iter().map(|kind| group_of(*kind)).collect();
    let faults: Vec<&str> = FaultKind::ALL.iter().map(|kind| kind.name()).collect();
    json!({
        "seed": options.seed.to_string(),
        "profile": options.profile.to_string(),
        "again": format!("simulator run {}", options.arguments()),
        "property": end.property,
        "detail": end.detail,
        "events": end.events,
        "hash": end.hash,
        "options": shown,
        "memory_bytes": options.memory_bytes[0],
        "kinds": KIND_NAMES,
        "faults": faults,
        "groups": groups,
        "names": recording.names,
        "moments": moments,
        "samples": recording.samples.iter().map(sample).collect::<Vec<Value>>(),
    })
}

fn sample(sample: &Sample) -> Value {
    let tenants = sample.tenants.iter();
    let tenants: Vec<Value> =
        tenants.map(|tenant| json!([tenant.name, tenant.state, tenant.memory_bytes])).collect();
    json!({
        "event": sample.event,
        "at": sample.at.0,
        "life": sample.life as u8,
        "held": sample.held,
        "log": sample.log_bytes,
        "queues": sample.queues,
        "counts": sample.counts,
        "faults": sample.faults,
        "tenants": tenants,
    })
}
