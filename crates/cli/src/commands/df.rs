//! `ringfs df`: shows how full a cluster is.

use clap::Args;

use crate::commands::status::{Health, inspect};
use crate::commands::{ClusterChoice, run_on_platform};
use crate::environment::Environment;
use crate::error::CliError;
use crate::output::{Output, Table};
use crate::remote::is_down;
use crate::units::show_size;

/// Show how full the cluster is
#[derive(Args, Debug)]
pub(crate) struct DfArguments {
    #[command(flatten)]
    choice: ClusterChoice,
}

impl DfArguments {
    pub(crate) fn run(self, environment: &Environment) -> Result<(), CliError> {
        let found = self.choice.find(environment)?;
        run_on_platform(environment, async |platform| {
            let report = inspect(&platform, &found).await?;
            if report.health == Health::Down {
                return Err(is_down(&found));
            }
            let (used, available) = (report.used_bytes, report.available_bytes);
            let percent = 100.0 * used as f64 / (used.saturating_add(available).max(1)) as f64;
            let head = ["CLUSTER", "CAPACITY", "USED", "AVAILABLE", "USE", "INODES"];
            let mut table = Table::new(&[1, 2, 3, 4, 5], &head);
            table.row(vec![
                report.name,
                show_size(report.capacity_bytes),
                show_size(used),
                show_size(available),
                format!("{percent:.1}%"),
                report.inodes.to_string(),
            ]);
            let mut output = Output::new();
            table.lines().iter().try_for_each(|line| output.line(line))?;
            output.finish()
        })
    }
}
