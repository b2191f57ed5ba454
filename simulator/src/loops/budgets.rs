//! What the caller says about budgets, and that it stays said (DUR-1 for the control API): what was
//! acknowledged is there at the end of every run, whatever came between.

use serde_json::{Value, json};

use super::caller::Caller;
use crate::client::request;
use crate::machine::{Door, Stop};
use crate::world::Violation;

/// The line that budgets are talked about on.
const LINE: usize = 51;

/// Something that was put and acknowledged: its path, and what a look at it must show.
pub type Kept = (&'static str, Value);

impl Caller {
    /// Put `body` at `path`; if that is acknowledged, a look there must show `shows` from now on.
    pub fn put_budget(
        &mut self,
        path: &'static str,
        body: &Value,
        shows: Value,
    ) -> Result<(), Stop> {
        // While nobody knows whether it was done, both are right.
        self.kept.retain(|(kept, _)| *kept != path);
        let status = self.talk_of_budgets("PUT", path, body)?.map(|(status, _)| status);
        match status {
            Some(200) => self.kept.push((path, shows)),
            // What one before was refused or lost may be missing now.
            Some(404 | 500 | 503) | None => {}
            Some(status) => {
                let text = format!("PUT {path} was answered with {status}");
                return Err(Violation::new("HTTP-1", text).into());
            }
        }
        Ok(())
    }

    /// Whether everything that was acknowledged is there. Faults are off.
    pub fn judge_budgets(&mut self) -> Result<(), Stop> {
        for (path, shows) in std::mem::take(&mut self.kept) {
            let heard = self.talk_of_budgets("GET", path, &Value::Null)?;
            let (status, answer) = heard.unwrap_or_default();
            let differs = |(key, value): (&String, &Value)| answer[key] != *value;
            let wrong = shows.as_object().is_none_or(|shows| shows.iter().any(differs));
            if status != 200 || wrong {
                let text = format!("{path} is {status} {answer}; acknowledged was {shows}");
                return Err(Violation::new("DUR-1", text).into());
            }
        }
        Ok(())
    }

    fn talk_of_budgets(
        &mut self,
        method: &str,
        path: &str,
        body: &Value,
    ) -> Result<Option<(u16, Value)>, Stop> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let bytes = request(method, path, "sim", &[], body.as_bytes());
        let heard = self.machine.ask(LINE, Door::Admin, &bytes);
        let heard = heard.map_err(|stop| self.on_stop(stop))?;
        if heard.is_none() && !self.struck() {
            return Err(Violation::new("LIVE-1", format!("{method} {path}: no answer")).into());
        }
        Ok(heard.map(|response| {
            (response.status, serde_json::from_slice(&response.body).unwrap_or_default())
        }))
    }

    /// A small tree: a plan, an organisation, a group, and the first tenant in it.
    pub fn plant_budgets(&mut self) -> Result<(), Stop> {
        let memory = json!({ "memory_bytes": 8 << 20 });
        self.put_budget("/v1/plans/free", &memory, json!({ "budget": memory }))?;
        let organisation = "/v1/organisations/acme";
        self.put_budget(organisation, &json!({}), json!({ "organisation": "acme" }))?;
        let said = json!({ "budget": { "memory_bytes": 12 << 20 } });
        self.put_budget("/v1/organisations/acme/groups/web", &said, said.clone())?;
        let place = json!({ "group": "acme/web", "plan": "free", "budget": { "weight": 7 } });
        self.put_budget("/v1/namespaces/tenant-0/budget", &place, place.clone())
    }
}
