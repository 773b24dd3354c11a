//! Values written down in code.

/// A [`Json`](crate::Json) value, written as JSON. Expressions of any type that is `Serialize` may stand for
/// values, and texts for keys.
///
/// As `serde_json::json!`, but the keys keep their order.
///
/// # Panics
/// If an expression cannot be JSON: a map whose keys are not text, say.
///
/// ```
/// use chronos_db::json;
/// let (name, tags) = ("Ada", vec!["a", "b"]);
/// let user = json!({"name": name, "tags": tags, "address": {"city": null, "zip": [1, 2.5]}, "n": 1 + 1});
/// assert_eq!(user.to_string(), r#"{"name":"Ada","tags":["a","b"],"address":{"city":null,"zip":[1,2.5]},"n":2}"#);
/// ```
#[macro_export]
macro_rules! json {
    // One token at a time goes from the rest to what was read; commas at the top end a value.
    (@array [$($done:expr,)*]) => { vec![$($done,)*] };
    (@array [$($done:expr),*]) => { vec![$($done),*] };
    (@array [$($done:expr,)*] null $($rest:tt)*) => { $crate::json!(@array [$($done,)* $crate::json!(null)] $($rest)*) };
    (@array [$($done:expr,)*] true $($rest:tt)*) => { $crate::json!(@array [$($done,)* $crate::json!(true)] $($rest)*) };
    (@array [$($done:expr,)*] false $($rest:tt)*) => { $crate::json!(@array [$($done,)* $crate::json!(false)] $($rest)*) };
    (@array [$($done:expr,)*] [$($array:tt)*] $($rest:tt)*) => { $crate::json!(@array [$($done,)* $crate::json!([$($array)*])] $($rest)*) };
    (@array [$($done:expr,)*] {$($object:tt)*} $($rest:tt)*) => { $crate::json!(@array [$($done,)* $crate::json!({$($object)*})] $($rest)*) };
    (@array [$($done:expr,)*] $next:expr, $($rest:tt)*) => { $crate::json!(@array [$($done,)* $crate::json!($next),] $($rest)*) };
    (@array [$($done:expr,)*] $last:expr) => { $crate::json!(@array [$($done,)* $crate::json!($last)]) };
    (@array [$($done:expr),*] , $($rest:tt)*) => { $crate::json!(@array [$($done,)*] $($rest)*) };

    (@object $map:ident () () ()) => {};
    (@object $map:ident [$($key:tt)+] ($value:expr) , $($rest:tt)*) => {
        let _ = $map.insert(($($key)+).into(), $value);
        $crate::json!(@object $map () ($($rest)*) ($($rest)*));
    };
    (@object $map:ident [$($key:tt)+] ($value:expr)) => {
        let _ = $map.insert(($($key)+).into(), $value);
    };
    (@object $map:ident ($($key:tt)+) (: null $($rest:tt)*) $copy:tt) => {
        $crate::json!(@object $map [$($key)+] ($crate::json!(null)) $($rest)*);
    };
    (@object $map:ident ($($key:tt)+) (: true $($rest:tt)*) $copy:tt) => {
        $crate::json!(@object $map [$($key)+] ($crate::json!(true)) $($rest)*);
    };
    (@object $map:ident ($($key:tt)+) (: false $($rest:tt)*) $copy:tt) => {
        $crate::json!(@object $map [$($key)+] ($crate::json!(false)) $($rest)*);
    };
    (@object $map:ident ($($key:tt)+) (: [$($array:tt)*] $($rest:tt)*) $copy:tt) => {
        $crate::json!(@object $map [$($key)+] ($crate::json!([$($array)*])) $($rest)*);
    };
    (@object $map:ident ($($key:tt)+) (: {$($object:tt)*} $($rest:tt)*) $copy:tt) => {
        $crate::json!(@object $map [$($key)+] ($crate::json!({$($object)*})) $($rest)*);
    };
    (@object $map:ident ($($key:tt)+) (: $value:expr , $($rest:tt)*) $copy:tt) => {
        $crate::json!(@object $map [$($key)+] ($crate::json!($value)) , $($rest)*);
    };
    (@object $map:ident ($($key:tt)+) (: $value:expr) $copy:tt) => {
        $crate::json!(@object $map [$($key)+] ($crate::json!($value)));
    };
    (@object $map:ident () (($key:expr) : $($rest:tt)*) $copy:tt) => {
        $crate::json!(@object $map ($key) (: $($rest)*) (: $($rest)*));
    };
    (@object $map:ident ($($key:tt)*) ($next:tt $($rest:tt)*) $copy:tt) => {
        $crate::json!(@object $map ($($key)* $next) ($($rest)*) ($($rest)*));
    };

    (null) => { $crate::Json::Null };
    (true) => { $crate::Json::Bool(true) };
    (false) => { $crate::Json::Bool(false) };
    ([]) => { $crate::Json::Array(vec![]) };
    ([$($items:tt)+]) => { $crate::Json::Array($crate::json!(@array [] $($items)+)) };
    ({}) => { $crate::Json::Object($crate::json::Map::new()) };
    ({$($members:tt)+}) => {
        $crate::Json::Object({
            let mut map = $crate::json::Map::new();
            $crate::json!(@object map () ($($members)+) ($($members)+));
            map
        })
    };
    ($value:expr) => { $crate::json::value_of(&$value) };
}
