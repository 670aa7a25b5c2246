"""What SQL may call and write (R16): everything not named here is refused.

Each function here gives the same answer for the same arguments on any run: no clock, randomness, settings, sequences,
files, catalogue or sampling. `age` with one argument reads the clock, `hash` may change with a release, `approx_*` and
`reservoir_quantile` sample: so they are not here.
"""

from __future__ import annotations

from typing import Final


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_OPERATORS = _names("+ - * / // % ** ^ & | << >> || ~ !  ~~ !~~ ~~* !~~* ~~~ -> ->> @ ^@ @> <@ &&")

_NUMERIC = _names(
    """abs acos acosh add asin asinh atan atan2 atanh bit_count cbrt ceil ceiling cos cosh cot degrees divide even exp
    factorial floor fmod gamma gcd greatest greatest_common_divisor isfinite isinf isnan lcm least least_common_multiple
    lgamma ln log log10 log2 mod multiply nextafter pi pow power radians round round_even sign signbit sin sinh sqrt
    subtract tan tanh trunc xor"""
)

_TEXT = _names(
    """ascii bar base64 bin bit_length char_length character_length chr concat concat_ws contains damerau_levenshtein
    editdist3 ends_with format formatreadablesize from_base64 from_hex hamming hex ilike_escape instr jaccard
    jaro_similarity jaro_winkler_similarity lcase left left_grapheme len length length_grapheme levenshtein like_escape
    lower lpad ltrim md5 mismatches nfc_normalize not_ilike_escape not_like_escape octet_length ord overlay position
    prefix printf regexp_escape regexp_extract regexp_extract_all regexp_full_match regexp_matches regexp_replace
    regexp_split_to_array repeat replace reverse right right_grapheme rpad rtrim sha1 sha256 split split_part
    starts_with str_split
    str_split_regex string_split string_split_regex string_to_array strip_accents strlen strpos substr
    substring substring_grapheme suffix to_base64 to_binary to_hex translate trim ucase unbin unhex unicode upper"""
)

_TIME = _names(
    """century date_add date_diff date_part date_sub date_trunc datediff datepart datesub datetrunc day dayname
    dayofmonth dayofweek dayofyear decade epoch epoch_ms epoch_ns epoch_us era hour isodow isoyear julian last_day
    make_date make_time make_timestamp make_timestamp_ms make_timestamp_ns microsecond millennium millisecond minute
    month monthname nanosecond quarter second strftime strptime time_bucket timezone to_centuries to_days to_decades
    to_hours to_microseconds to_millennia to_milliseconds to_minutes to_months to_quarters to_seconds to_timestamp
    to_weeks to_years try_strptime week weekday weekofyear year yearweek"""
)

_NESTED = _names(
    """array_extract array_length array_slice array_value cardinality element_at flatten generate_series if ifnull
    list_any_value list_append list_apply list_avg list_concat list_contains list_count list_distinct list_element
    list_extract list_filter list_first list_has list_has_all list_has_any list_indexof list_last list_max list_min
    list_pack list_position list_product list_reduce list_resize list_reverse list_reverse_sort list_select list_slice
    list_sort list_sum list_transform list_unique list_value list_where list_zip map map_concat map_contains map_entries
    map_extract map_extract_value map_from_entries map_keys map_values nullif range row struct_extract struct_insert
    struct_pack switch unnest width_bucket"""
)

_AGGREGATE = _names(
    """any_value arbitrary arg_max arg_min argmax argmin array_agg avg bit_and bit_or bit_xor bool_and bool_or corr
    count count_if count_star countif covar_pop covar_samp entropy favg first fsum geomean geometric_mean group_concat
    histogram kahan_sum kurtosis kurtosis_pop last list listagg mad max max_by mean median min min_by mode product
    quantile quantile_cont quantile_disc regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx
    regr_sxy regr_syy sem skewness stddev stddev_pop stddev_samp string_agg sum sumkahan var_pop var_samp variance"""
)

_WINDOW = _names(
    """cume_dist dense_rank fill first_value lag last_value lead nth_value ntile percent_rank rank rank_dense
    row_number"""
)

FUNCTIONS: Final = _OPERATORS | _NUMERIC | _TEXT | _TIME | _NESTED | _AGGREGATE | _WINDOW

EXPRESSIONS: Final[dict[str, frozenset[str] | None]] = {
    "BETWEEN": None,
    "CASE": None,
    "CAST": None,
    "COLUMN_REF": None,
    "COMPARISON": None,
    "CONJUNCTION": None,
    "CONSTANT": None,
    "FUNCTION": None,
    "LAMBDA": None,
    "LAMBDA_REF": None,
    # TRY is left out: which errors it hides is not ours to say.
    "OPERATOR": _names(
        """OPERATOR_NOT OPERATOR_IS_NULL OPERATOR_IS_NOT_NULL OPERATOR_COALESCE COMPARE_IN COMPARE_NOT_IN
        ARRAY_CONSTRUCTOR ARRAY_EXTRACT ARRAY_SLICE STRUCT_EXTRACT GROUPING_FUNCTION"""
    ),
    "PARAMETER": _names("VALUE_PARAMETER"),
    "STAR": None,
    "SUBQUERY": None,
    "TYPE": None,
    "WINDOW": None,
}
"""Expression classes, and where it matters the kinds of them."""

TYPES: Final = _names(
    """bigint bit blob bool boolean bpchar char date dec decimal double float float4 float8 hugeint int int1 int2 int4
    int8 integer interval list long map numeric real short smallint string struct text time timestamp timestamp_ms
    timestamp_ns timestamp_s timestamptz tinyint ubigint uhugeint uinteger usmallint utinyint uuid varchar array
    signed integral int16 int32 int64 nvarchar datetime"""
) | {"time with time zone", "timestamp with time zone", "double precision"}

NODES: Final = _names("SELECT_NODE SET_OPERATION_NODE RECURSIVE_CTE_NODE CTE_NODE")
MODIFIERS: Final = _names("ORDER_MODIFIER LIMIT_MODIFIER DISTINCT_MODIFIER ORDER_DEFAULT ASCENDING DESCENDING")
TABLES: Final = _names("BASE_TABLE SUBQUERY JOIN EMPTY EXPRESSION_LIST")
JOINS: Final = _names("REGULAR NATURAL CROSS ASOF DEPENDENT")

CLOCKS_AND_SESSION: Final = _names(
    """current_catalog current_database current_date current_localtime current_localtimestamp current_role
    current_schema current_time current_timestamp current_user localtime localtimestamp rowid session_user user"""
)
"""Names that the parser takes for columns and the binder, finding no such column, for functions."""
