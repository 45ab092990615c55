"""The published figures of Dinkel et al. (2024), Tables 1 to 3, for comparison with ours. mAP and F1 are in percent."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One row of a table; None where the table has no value."""

    model: str
    """Name in the paper."""
    delay_s: int
    """Seconds of audio read before a score is output."""
    arch: str | None = None
    """Our name of the configuration or external tagger; None for models that satpipe does not have."""
    streaming: bool = False
    tokens: str = ""
    memory: str = ""
    """Peak memory of inference on one sample, without the parameters."""
    gflops: float | None = None
    map_percent: float | None = None
    segment_f1_percent: float | None = None
    onset_f1_percent: float | None = None

    def percent(self, figure: str) -> float | None:
        """Return `mAP`, `segment_f1` or `onset_f1`."""
        value: float | None = getattr(self, f"{figure.lower()}_percent")
        return value


TABLE_1 = (
    Row("PaSST-Tiny", 10, None, False, "496", "120 M", 5.4, 39.7),
    Row("MS-Tiny", 10, None, False, "496", "120 M", 5.4, 40.3),
    Row("ViT-T", 10, "audiotransformer_tiny", False, "256", "52 M", 2.7, 44.2),
    Row("PaSST-S", 10, None, False, "496", "279 M", 21, 43.1),
    Row("MS-Small", 10, None, False, "496", "279 M", 21, 44.2),
    Row("AMAE-S", 10, None, False, "512", "291 M", 22, 45.0),
    Row("ViT-S", 10, "audiotransformer_small", False, "256", "105 M", 10, 45.7),
    Row("AST", 10, "ast", False, "1212", "2.2 G", 202, 45.9),
    Row("KD-AST", 10, None, False, "1212", "2.2 G", 202, 47.1),
    Row("MS-Base", 10, None, False, "496", "575 M", 83, 47.1),
    Row("PaSST", 10, None, False, "512", "562 M", 85, 47.1),
    Row("AMAE-B", 10, None, False, "512", "562 M", 85, 47.3),
    Row("AMAE-L", 10, None, False, "512", "1.5 G", 300, 47.4),
    Row("HTS-AT", 10, "htsat", False, "1024", "171 M", 14, 47.1),
    Row("BEATs", 10, "beats", False, "496", "620 M", 100, 47.9),
    Row("ViT-B", 10, "audiotransformer_base", False, "256", "210 M", 42, 47.4),
)
TABLE_2 = (  # and Table 3: the last two figures
    Row("ViT-T", 2, "audiotransformer_tiny", False, "48", "7.6 M", 0.5, 39.1, 18.2, 6.2),
    Row("ViT-S", 2, "audiotransformer_small", False, "48", "15 M", 2.1, 40.9, 19.0, 6.4),
    Row("ViT-B", 2, "audiotransformer_base", False, "48", "30 M", 8.2, 41.5, 18.8, 6.2),
    Row("AST", 2, "ast", False, "1212", "2.2 G", 202, 39.7, 13.7, 4.7),
    Row("BEATs", 2, "beats", False, "96", "83 M", 17.8, 38.7, 16.1, 5.7),
    Row("HTS-AT", 2, "htsat", False, "1024", "171 M", 42, 5.2),
    Row("SAT-T", 2, "SAT_T_2s", True, "48/48", "9 M", 0.5, 43.3, 28.9, 8.6),
    Row("SAT-S", 2, "SAT_S_2s", True, "48/48", "18 M", 2.1, 43.4, 30.6, 9.0),
    Row("SAT-B", 2, "SAT_B_2s", True, "48/48", "36 M", 8.2, 45.1, 30.1, 8.4),
    Row("ViT-T", 1, "audiotransformer_tiny", False, "24", "3.8 M", 0.3, 33.0, 11.1, 6.2),
    Row("ViT-S", 1, "audiotransformer_small", False, "24", "7.5 M", 1.1, 34.9, 11.7, 6.4),
    Row("ViT-B", 1, "audiotransformer_base", False, "24", "14 M", 4.1, 34.2, 10.2, 6.2),
    Row("AST", 1, "ast", False, "1212", "2.2 G", 202, 36.6, 10.5, 4.7),
    Row("BEATs", 1, "beats", False, "48", "83 M", 17.8, 35.2, 11.0, 5.7),
    Row("HTS-AT", 1, "htsat", False, "1024", "171 M", 42, 2.4),
    Row("SAT-T", 1, "SAT_T_1s", True, "24/24", "4.3 M", 0.3, 40.1, 24.2, 7.3),
    Row("SAT-S", 1, "SAT_S_1s", True, "24/24", "9 M", 1.1, 40.2, 25.3, 7.1),
    Row("SAT-B", 1, "SAT_B_1s", True, "24/24", "16 M", 4.1, 41.4, 22.3, 8.3),
)
TABLES = {1: TABLE_1, 2: TABLE_2, 3: tuple(row for row in TABLE_2 if row.segment_f1_percent is not None)}


def row(table: int, arch: str, delay_s: float, memory: bool) -> Row | None:
    """Return the row of a table for one of our configurations, a delay in seconds, and with or without memory."""
    key = (arch, delay_s, memory)
    return next((each for each in TABLES[table] if (each.arch, each.delay_s, each.streaming) == key), None)
