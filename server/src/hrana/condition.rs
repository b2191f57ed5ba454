//! Conditions of batch steps: a small tree over the outcomes of earlier steps.

use serde::de::{Error, MapAccess};

use super::decode::Context;
use super::fields::{Fields, Items, Object, Slot, Text};
use crate::limits::CONDITION_DEPTH_MAX;

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepOutcome {
    Succeeded,
    Failed,
    /// Its condition did not hold. Neither `ok` nor `error` is true of it, as the specification
    /// has it; sqld takes it for an error, and no client depends on either.
    Skipped,
}

/// When a step runs. Steps refer to earlier steps only: checked when decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Succeeded(usize),
    Failed(usize),
    Not(Box<Condition>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    IsAutocommit,
}

impl Condition {
    /// Recurses at most [`CONDITION_DEPTH_MAX`] deep.
    pub fn holds(&self, outcomes: &[StepOutcome], is_autocommit: bool) -> bool {
        let holds = |condition: &Condition| condition.holds(outcomes, is_autocommit);
        match self {
            Condition::Succeeded(step) => outcomes[*step] == StepOutcome::Succeeded,
            Condition::Failed(step) => outcomes[*step] == StepOutcome::Failed,
            Condition::Not(condition) => !holds(condition),
            Condition::And(conditions) => conditions.iter().all(holds),
            Condition::Or(conditions) => conditions.iter().any(holds),
            Condition::IsAutocommit => is_autocommit,
        }
    }
}

/// Reads the condition of step `step_index`.
pub(super) struct ConditionFields<'c, 'a> {
    context: &'c Context,
    step_index: usize,
    depth: u32,
    kind: Slot<Text<'a>>,
    step: Slot<u32>,
    inner: Slot<Condition>,
    conditions: Slot<Vec<Condition>>,
}

impl<'c, 'a> ConditionFields<'c, 'a> {
    pub fn seed<E: Error>(
        context: &'c Context,
        step_index: usize,
        depth: u32,
    ) -> Result<Object<ConditionFields<'c, 'a>>, E> {
        if depth > CONDITION_DEPTH_MAX {
            let text = format_args!("a condition nests more than {CONDITION_DEPTH_MAX} deep");
            return Err(E::custom(text));
        }
        Ok(Object(ConditionFields {
            context,
            step_index,
            depth,
            kind: Slot::default(),
            step: Slot::default(),
            inner: Slot::default(),
            conditions: Slot::default(),
        }))
    }

    fn earlier_step<E: Error>(step: Slot<u32>, step_index: usize) -> Result<usize, E> {
        let step = step.required::<E>("step")? as usize;
        if step >= step_index {
            return Err(E::custom("Invalid reference to step in a batch condition"));
        }
        Ok(step)
    }
}

impl<'a> Fields<'a> for ConditionFields<'_, 'a> {
    type Output = Condition;

    fn field<A: MapAccess<'a>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
        match name {
            "type" => self.kind.read("type", map),
            "step" => self.step.read("step", map),
            "cond" => {
                let seed = ConditionFields::seed(self.context, self.step_index, self.depth + 1)?;
                self.inner.read_by("cond", map, seed)
            }
            "conds" => {
                let items = Conditions {
                    context: self.context,
                    step_index: self.step_index,
                    depth: self.depth + 1,
                };
                self.conditions.read_list("conds", map, items)
            }
            _ => Ok(false),
        }
    }

    fn finish<E: Error>(self) -> Result<Condition, E> {
        self.context.take_item()?;
        let kind = self.kind.required::<E>("type")?;
        match &*kind.0 {
            "ok" => {
                let step = ConditionFields::earlier_step(self.step, self.step_index)?;
                Ok(Condition::Succeeded(step))
            }
            "error" => {
                let step = ConditionFields::earlier_step(self.step, self.step_index)?;
                Ok(Condition::Failed(step))
            }
            "not" => Ok(Condition::Not(Box::new(self.inner.required("cond")?))),
            "and" => Ok(Condition::And(self.conditions.required("conds")?)),
            "or" => Ok(Condition::Or(self.conditions.required("conds")?)),
            "is_autocommit" if self.context.has_autocommit => Ok(Condition::IsAutocommit),
            _ => Err(E::custom("unknown type of a condition in this version")),
        }
    }
}

struct Conditions<'c> {
    context: &'c Context,
    step_index: usize,
    depth: u32,
}

impl<'c, 'a: 'c> Items<'a> for Conditions<'c> {
    type Seed = Object<ConditionFields<'c, 'a>>;
    type Output = Vec<Condition>;

    fn seed<E: Error>(&mut self, _index: usize) -> Result<Self::Seed, E> {
        ConditionFields::seed(self.context, self.step_index, self.depth)
    }
}
