//! Integers and structures in the machine's byte order.

/// A request that ends too early or holds what the kernel never sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A value of fixed size.
pub(crate) trait Abi: Sized {
    /// Its size in bytes.
    const SIZE: usize;
    /// Appends it to `out`.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes it from the front of `bytes`.
    fn get(bytes: &mut &[u8]) -> Result<Self, Malformed>;
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl Abi for $type {
            const SIZE: usize = size_of::<$type>();
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_ne_bytes());
            }
            #[expect(clippy::host_endian_bytes, reason = "the kernel runs on this machine")]
            fn get(bytes: &mut &[u8]) -> Result<Self, Malformed> {
                let (value, rest) = bytes.split_first_chunk().ok_or(Malformed)?;
                *bytes = rest;
                Ok(<$type>::from_ne_bytes(*value))
            }
        }
    )*};
}
integers!(u16, u32, i32, u64, i64);

impl<T: Abi + Copy + Default, const N: usize> Abi for [T; N] {
    const SIZE: usize = N * T::SIZE;
    fn put(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|item| item.put(out));
    }
    fn get(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let mut items = [T::default(); N];
        for item in &mut items {
            *item = T::get(bytes)?;
        }
        Ok(items)
    }
}

/// A structure without gaps, with its size in `linux/fuse.h`.
macro_rules! abi_struct {
    ($(#[$meta:meta])* $name:ident, $size:literal, { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct $name { $(pub(crate) $field: $type),* }

        impl $crate::abi::codec::Abi for $name {
            const SIZE: usize = $size;
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::abi::codec::Abi::put(&self.$field, out);)*
            }
            fn get(bytes: &mut &[u8]) -> Result<Self, $crate::abi::codec::Malformed> {
                Ok(Self { $($field: $crate::abi::codec::Abi::get(bytes)?),* })
            }
        }
        const _: () = assert!(0 $(+ <$type as $crate::abi::codec::Abi>::SIZE)* == $size);
    };
}
pub(crate) use abi_struct;
