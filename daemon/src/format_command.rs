//! `mxlockd format`, and `--create`.

use crate::cli::FormatArgs;
use crate::config::Settings;
use crate::error::{Failure, Kind};
use crate::start::disk_failure;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mxlock_disklock::format::{FormatOptions, Formatted, Progress, format};
use mxlock_disklock::{Scope, medium_at};
use mxlock_format::{DEFAULT_SLOT_COUNT, Superblock, Timing};
use std::io::IsTerminal;
use std::path::Path;

/// Makes the lockstate and says what was made.
pub(crate) fn run(args: &FormatArgs) -> Result<(), Failure> {
    Superblock::validate_name(&args.lockspace).map_err(|e| Failure::new(Kind::Usage, e))?;
    let timing = args.timing();
    timing.check().map_err(|e| Failure::new(Kind::Config, e))?;
    let options = FormatOptions {
        lockspace: args.lockspace.clone(),
        slots: args.slots,
        sector: args.sector,
        timing,
        force: args.force,
    };
    let made = with_progress(&args.path, &options)?;
    print!("{}", Summary(&made));
    Ok(())
}

/// `--create`: makes the lockstate at the start, where nobody else could be meant by it.
pub(crate) fn create(settings: &Settings) -> Result<(), Failure> {
    let path = &settings.lockstate;
    let medium = medium_at(path).map_err(disk_failure)?;
    if medium.scope != Scope::ThisHost {
        return Err(Failure::new(
            Kind::Config,
            format_args!(
                "--create does not make {}: it is on {}, which other hosts can share: run 'mxlockd format' once",
                path.display(),
                medium.name
            ),
        ));
    }
    let options = FormatOptions {
        lockspace: settings.lockspace.clone(),
        slots: DEFAULT_SLOT_COUNT,
        sector: None,
        timing: Timing::FAST,
        force: false,
    };
    let made = with_progress(path, &options)?;
    tracing::info!("made {}: lockspace {} {}", made.path.display(), made.superblock.lockspace, made.superblock.uuid);
    Ok(())
}

fn with_progress(path: &Path, options: &FormatOptions) -> Result<Formatted, Failure> {
    let mut bar = Bar::new();
    let made = format(path, options, &mut |progress| bar.show(progress));
    bar.bar.finish_and_clear();
    made.map_err(disk_failure)
}

/// A bar on a terminal, nothing elsewhere.
struct Bar {
    bar: ProgressBar,
    writing: bool,
}

impl Bar {
    fn new() -> Bar {
        let shown = std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Bar { bar: ProgressBar::with_draw_target(None, target), writing: false }
    }

    fn show(&mut self, progress: Progress) {
        match progress {
            Progress::Watching { watched, total } => {
                if self.bar.length().is_none() {
                    self.bar.set_style(style("watching the old lockstate {wide_bar} {msg}"));
                    self.bar.set_length(total.as_millis() as u64);
                }
                self.bar.set_position(watched.as_millis() as u64);
                self.bar.set_message(format!("{} of {} s", watched.as_secs(), total.as_secs()));
            }
            Progress::Writing { done, total } => {
                if !self.writing {
                    self.writing = true;
                    self.bar.set_style(style("writing {wide_bar} {bytes} of {total_bytes}, {eta}"));
                    self.bar.set_length(total);
                }
                self.bar.set_position(done);
            }
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What `format` prints; never the cluster key.
struct Summary<'a>(&'a Formatted);

impl std::fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Formatted { path, medium, superblock, base_epoch } = self.0;
        let Superblock { geometry, timing, lockspace, uuid, .. } = superblock;
        writeln!(f, "lockstate  {}", path.display())?;
        writeln!(f, "medium     {} ({})", medium.name, scope_text(medium.scope))?;
        writeln!(f, "lockspace  {lockspace}")?;
        writeln!(f, "uuid       {uuid}")?;
        writeln!(f, "sectors    64 heartbeats + {} records of {} bytes", geometry.slot_count, geometry.sector.bytes())?;
        writeln!(
            f,
            "timing     renew {} ms, lease {} ms, grace {} ms, dead {} ms",
            timing.renew_ms, timing.lease_ms, timing.grace_ms, timing.dead_ms
        )?;
        writeln!(f, "epoch      above {base_epoch}")
    }
}

/// In the words of `mxlock status`.
pub(crate) fn scope_text(scope: Scope) -> &'static str {
    match scope {
        Scope::Shared => "shared",
        Scope::ThisHost => "this host only",
    }
}
