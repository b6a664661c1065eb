//! Near misses: names that one was perhaps meant to be.
//!
//! Invariant: a hint only; nothing is taken for another name because it is near.

/// Names shown at most: more would not be read.
const MOST: usize = 3;

/// How alike two names are at least (Jaro-Winkler, 1.0 is equal): one slip in a
/// short name, two or three in a long one.
const LEAST_ALIKE: f64 = 0.8;

/// Of the names that there are, those that the typed one was perhaps meant to
/// be, the nearest first. Letters count without regard to case: that is the
/// commonest slip of all.
pub fn near_misses<'a>(typed: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let typed = typed.to_lowercase();
    let mut near: Vec<(f64, &str)> = names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&typed, &name.to_lowercase()), name))
        .filter(|(alike, _)| *alike >= LEAST_ALIKE)
        .collect();
    near.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    near.into_iter().map(|(_, name)| name).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_case_a_plural_and_a_slip_are_near_and_other_words_are_not() {
        let names = ["Audit", "orders", "order_lines", "customers"];
        assert_eq!(near_misses("audit", names), ["Audit"]);
        assert_eq!(near_misses("order", names).first(), Some(&"orders"));
        assert_eq!(near_misses("custmoers", names), ["customers"]);
        assert!(near_misses("zebra", names).is_empty());
        assert_eq!(near_misses("t1", ["t2", "t3", "t4", "t5"]).len(), 0);
    }
}
