//! Databases created from a template beside empty ones: what the rows in them cost their creator.
//!
//! Rounds of both kinds alternate, so that what the machine does meanwhile meets both. The first use of
//! a copy is measured too, as what a copy saves at its making it may have to pay there.

use super::{Bench, OK, all_good};
use crate::bench::histogram::Histogram;
use crate::bench::load::Until;
use crate::bench::report::{Table, duration_text};
use crate::bench::request::{Choice, Order, TENANT_HOLE, Template};

/// Tables of the template, each with [`ROWS`] rows.
const TABLES: u32 = 8;

const ROWS: u32 = 5;

/// Rounds of each kind.
const ROUNDS: u32 = 5;

/// Databases of a round, at most: 40 KiB of log each, so that they do not fill the commit log, and
/// what is measured is not its checkpoints.
const ROUND_MAX: u32 = 200;

/// What all rounds of one kind come to.
struct Sum {
    latencies: Histogram,
    seconds: f64,
}

impl Sum {
    fn new() -> Sum {
        Sum { latencies: Histogram::new(), seconds: 0.0 }
    }

    fn row(&self, what: &str) -> Vec<String> {
        vec![
            what.to_owned(),
            self.latencies.count().to_string(),
            format!("{:.0}", self.per_second()),
            duration_text(self.latencies.quantile(500)),
            duration_text(self.latencies.quantile(990)),
        ]
    }

    fn per_second(&self) -> f64 {
        self.latencies.count() as f64 / self.seconds
    }
}

impl Bench<'_> {
    /// Creates one by one over all connections, empty and from a template.
    pub(super) fn from_template(&mut self) -> Result<(), String> {
        let from = self.fill_template()?;
        let seed = format!(r#"{{"seed":{{"type":"database","name":"{from}"}}}}"#);
        let count = self.options.tenants.min(ROUND_MAX);
        let mut sums = [Sum::new(), Sum::new(), Sum::new()];
        for round in 0..ROUNDS {
            let [empty, copies, used] = &mut sums;
            self.round(&format!("empty-{round}"), "{}", count, empty)?;
            let name = format!("copy-{round}");
            self.round(&name, &seed, count, copies)?;
            self.use_copies(&name, count, used)?;
        }
        let heads = ["created", "databases", "a second", "p50", "p99"];
        let mut table = Table::new("from a template", &heads);
        let [empty, copies, used] = &sums;
        table.rows.push(empty.row("empty"));
        table.rows.push(copies.row("from the template"));
        table.rows.push(used.row("(first select in such a one)"));
        table.notes.push(format!(
            "one from the template of {TABLES} tables with {ROWS} rows each costs {:.2} empty ones",
            empty.per_second() / copies.per_second()
        ));
        self.tables.push(table);
        Ok(())
    }

    /// The template's name.
    fn fill_template(&mut self) -> Result<String, String> {
        let name = "template";
        self.prepare(name, 1, 0)?;
        for table in 0..TABLES {
            let rows = format!(
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT {ROWS}) \
                 SELECT x, 'row ' || x FROM n"
            );
            let create = format!("CREATE TABLE t{table}(id INTEGER PRIMARY KEY, value TEXT)");
            let statements =
                [(create.as_str(), None), (&*format!("INSERT INTO t{table} {rows}"), None)];
            let template =
                Template::pipeline(self.target(), &self.base_name(name), &statements, OK);
            let choice = Choice { order: Order::Sequential, tenants: 1, rows: 1 };
            let outcome = self.load("filling a template", &template, choice, Until::Requests(1))?;
            all_good("filling a template", &outcome)?;
        }
        Ok(format!("{}-00000000", self.base_name(name)))
    }

    fn round(&mut self, name: &str, body: &str, count: u32, sum: &mut Sum) -> Result<(), String> {
        let admin = self.admin.clone().ok_or("this needs the admin API")?;
        let path = format!("/v1/namespaces/{}-{TENANT_HOLE}/create", self.base_name(name));
        let template = Template::new(&admin, "POST", &path, body, "");
        let choice = Choice { order: Order::Sequential, tenants: count, rows: 1 };
        let until = Until::Requests(u64::from(count));
        let outcome = self.load_on(name, &admin, &template, choice, until)?;
        all_good(name, &outcome)?;
        sum.latencies.add(&outcome.latencies);
        sum.seconds += outcome.elapsed.as_secs_f64();
        Ok(())
    }

    fn use_copies(&mut self, name: &str, count: u32, sum: &mut Sum) -> Result<(), String> {
        let sql = format!("SELECT value FROM t{} WHERE id = {ROWS}", TABLES - 1);
        let statements = [(sql.as_str(), None)];
        let template = Template::pipeline(self.target(), &self.base_name(name), &statements, "row");
        let choice = Choice { order: Order::Sequential, tenants: count, rows: 1 };
        let until = Until::Requests(u64::from(count));
        let outcome = self.load(name, &template, choice, until)?;
        all_good(name, &outcome)?;
        sum.latencies.add(&outcome.latencies);
        sum.seconds += outcome.elapsed.as_secs_f64();
        Ok(())
    }
}
