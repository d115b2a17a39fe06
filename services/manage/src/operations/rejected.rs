//! Messages that were no events.

use super::sight::Sight;
use crate::{Manage, ledger_away};
use herald_access::Caller;
use herald_access::problem::Problem;
use herald_ledger::rejected::RejectedView;
use uuid::Uuid;

/// How many are read at a time, and after how many bytes a page ends early: a body may have 1 MiB, and
/// a full page of those would fill the memory.
const STEP: usize = 8;
const PAGE_BYTES: usize = 8 << 20;

/// Those that the caller sees, newest first and before `before`, at most `most` and some [`PAGE_BYTES`]; and whether
/// there are more.
pub(crate) async fn list(
    manage: &Manage,
    caller: Caller,
    before: Option<Uuid>,
    most: usize,
) -> Result<(Vec<RejectedView>, bool), Problem> {
    let scope = Sight::of(caller).account().map(|account| account.to_string());
    let mut found: Vec<RejectedView> = Vec::new();
    let mut bytes = 0;
    // One more than that says whether there are more.
    let ask = most + 1;
    loop {
        let step = STEP.min(ask - found.len());
        let before = found.last().map(|last| last.id).or(before);
        let limit = u64::try_from(step).unwrap_or(u64::MAX);
        let rows = manage.ledger.rejected(scope.as_deref(), before, limit).await;
        let rows = rows.map_err(ledger_away)?;
        let exhausted = rows.len() < step;
        bytes += rows.iter().map(|row| row.body.len()).sum::<usize>();
        found.extend(rows);
        if exhausted || found.len() >= ask {
            let more = found.len() > most;
            found.truncate(most);
            return Ok((found, more));
        }
        if bytes >= PAGE_BYTES {
            return Ok((found, true));
        }
    }
}
