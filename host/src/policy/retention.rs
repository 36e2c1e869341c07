//! Decides which stored items (letters, media, transcripts) are deleted by age and total size. `maintenance` calls
//! it.

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainedItem {
    pub bytes: u64,
    /// The time since its last change.
    pub age: Duration,
    /// An open turn or part still needs it, so it stays in any case.
    pub in_use: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionRule {
    /// The host deletes older items.
    pub longest: Duration,
    /// The largest total size in bytes. Above it the host deletes the oldest items first. Absent: no limit.
    pub budget: Option<u64>,
}

/// The indices of the items to delete, the oldest first.
pub fn gone(things: &[RetainedItem], rule: RetentionRule) -> Vec<usize> {
    let mut oldest_first: Vec<(usize, &RetainedItem)> = things.iter().enumerate().collect();
    oldest_first.sort_by_key(|(at, thing)| (std::cmp::Reverse(thing.age), *at));
    let mut total: u64 = things.iter().fold(0, |sum, thing| sum.saturating_add(thing.bytes));
    let mut gone = Vec::new();
    for (at, thing) in oldest_first {
        let too_much = rule.budget.is_some_and(|budget| total > budget);
        if !thing.in_use && (thing.age > rule.longest || too_much) {
            total = total.saturating_sub(thing.bytes);
            gone.push(at);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn kept(days: u32, bytes: u64, in_use: bool) -> RetainedItem {
        RetainedItem { bytes, age: DAY * days, in_use }
    }

    #[test]
    fn what_is_old_goes_and_what_is_needed_stays() {
        let things = [kept(15, 1, false), kept(14, 1, false), kept(40, 1, true), kept(20, 1, false)];
        let rule = RetentionRule { longest: DAY * 14, budget: None };
        assert_eq!(gone(&things, rule), [3, 0]);
    }

    #[test]
    fn above_the_budget_the_oldest_go_first() {
        let things = [kept(1, 60, false), kept(3, 60, true), kept(2, 60, false), kept(0, 60, false)];
        let rule = |budget| RetentionRule { longest: DAY * 14, budget: Some(budget) };
        assert!(gone(&things, rule(240)).is_empty());
        assert_eq!(gone(&things, rule(239)), [2]);
        assert_eq!(gone(&things, rule(130)), [2, 0]);
        assert_eq!(gone(&things, rule(0)), [2, 0, 3], "what is in use stays, however little room there is");
    }

    proptest! {
        #[test]
        fn nothing_in_use_goes_and_no_more_than_needed(
            things in prop::collection::vec((0_u32..40, 0_u64..100, any::<bool>()), 0..30),
            budget in 0_u64..2_000,
        ) {
            let things: Vec<RetainedItem> = things.into_iter().map(|(days, bytes, used)| kept(days, bytes, used)).collect();
            let rule = RetentionRule { longest: DAY * 14, budget: Some(budget) };
            let gone = gone(&things, rule);
            prop_assert!(gone.iter().all(|at| !things[*at].in_use));
            let left = |gone: &[usize]| -> u64 {
                let stays = things.iter().enumerate().filter(|(at, _)| !gone.contains(at));
                stays.map(|(_, thing)| thing.bytes).sum()
            };
            let free_to_go = things.iter().enumerate().any(|(at, t)| !t.in_use && !gone.contains(&at));
            prop_assert!(left(&gone) <= budget || !free_to_go);
            // The last item that was deleted for the budget was necessary.
            if let Some((last, before)) = gone.split_last()
                && things[*last].age <= rule.longest
            {
                prop_assert!(left(before) > budget);
            }
        }
    }
}
