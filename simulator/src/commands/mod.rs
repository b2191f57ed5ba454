//! The commands of the `simulator` binary, one file each, and the world that their arguments name.
//!
//! A command answers whether all went well, or a sentence about what stands in the way of an answer.

pub mod child;
pub mod coverage;
pub mod fuzz;
pub mod mutants;
pub mod page;
pub mod replay;
pub mod run;
pub mod shrink;
pub mod swarm;
mod tally;

use simulator::world::{Options, Profile};

/// Which world: a seed, a profile, and options set by hand.
#[derive(Clone, Debug, clap::Args)]
pub struct Choice {
    /// The seed; everything else follows from it.
    pub seed: u64,
    /// Which faults there are: calm, drawn or swarm.
    #[arg(long, default_value = "swarm")]
    pub profile: Profile,
    /// Set an option to another value than the seed's; any that the line of options names.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

impl Choice {
    /// The options of this world.
    pub fn options(&self) -> Result<Options, String> {
        let mut options = Options::draw(self.seed, self.profile);
        for assignment in &self.set {
            options.change(assignment)?;
        }
        Ok(options)
    }

    /// As arguments of `simulator run`.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments =
            vec![self.seed.to_string(), "--profile".to_owned(), self.profile.to_string()];
        for assignment in &self.set {
            arguments.extend(["--set".to_owned(), assignment.clone()]);
        }
        arguments
    }
}
