//! Shortens a list of steps that ends in a difference, as long as a difference remains.

use crate::step::Step;

/// A shorter list that still fails; `fails` tries one, and tells how many of its steps were taken.
pub(crate) fn shrink(steps: Vec<Step>, fails: impl Fn(&[Step]) -> Option<usize>) -> Vec<Step> {
    let mut steps = steps;
    let mut part = steps.len().div_ceil(2);
    loop {
        let mut start = 0;
        while start < steps.len() {
            let end = steps.len().min(start + part);
            let fewer = [&steps[..start], &steps[end..]].concat();
            match fails(&fewer) {
                Some(taken) => steps = fewer[..taken].to_vec(),
                None => start = end,
            }
        }
        if part == 1 {
            return steps;
        }
        part = part.div_ceil(2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::{Call, User};

    #[test]
    fn only_what_matters_is_left() {
        let step = |slot| Step { mount: 0, user: User::Root, call: Call::Close { slot } };
        let steps: Vec<_> = (0..100).map(step).collect();
        let fails = |steps: &[Step]| {
            let position = |slot| steps.iter().position(|one| *one == step(slot));
            Some(position(17)?.max(position(71)?) + 1)
        };
        assert_eq!(shrink(steps, fails), vec![step(17), step(71)]);
        assert_eq!(shrink(vec![step(17), step(71)], fails), vec![step(17), step(71)]);
    }
}
