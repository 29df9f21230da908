//! Deliberate defects, by which the simulator's checks are shown to be able to fail.

/// Whether a deliberate defect is switched on, in a crate whose feature `mutations` is: never in a
/// shipped build. The first argument is what has `mutations` as a field.
#[macro_export]
macro_rules! is_defective {
    ($holder:expr, $defect:ident) => {{
        #[cfg(feature = "mutations")]
        let is_defective = $holder.mutations.$defect;
        #[cfg(not(feature = "mutations"))]
        let is_defective = {
            let _ = &$holder;
            false
        };
        is_defective
    }};
}
