"""Command lines that write texts about images: every kind of source, option and output."""

from __future__ import annotations

from tests.equivalence.cases import case

CAPTION = (
    case("caption a folder", "caption photos --model tiny -o c.jsonl"),
    case("caption to stdout", "caption photos --model tiny"),
    case("caption on a terminal", "caption photos --model tiny -q", terminal=True),
    case("caption one file", "caption photos/cats.png --model tiny -o c.parquet"),
    case("caption a glob", "caption 'photos/**/*.jpg' --model tiny -o c.jsonl.gz"),
    case("caption several sources", "caption photos two shard.tar --model tiny --workers 2"),
    case("caption stdin", "caption - --model tiny -o c.jsonl", stdin="list.txt"),
    case("caption stdin, NUL", "caption - -0 --model tiny --limit 2", stdin="list0.txt"),
    case("caption a list", "caption list.txt --model tiny -o c.jsonl"),
    case(
        "caption a CSV table",
        """
caption list.csv --model tiny --keep sku --keep label -o c.parquet
""",
    ),
    case("caption a TSV table", "caption list.tsv --model tiny --keep sku"),
    case(
        "caption a JSONL table",
        """
caption list.jsonl --model tiny --keep price --keep sku -o c.jsonl
""",
    ),
    case(
        "caption a Parquet table",
        """
caption list.parquet --model tiny --keep price --keep label -o c.parquet
""",
    ),
    case("caption images in Parquet", "caption images.parquet --model tiny --keep label"),
    case("caption a tar shard", "caption shard.tar --model tiny --keep txt --keep n"),
    case("caption a cut tar", "caption cut.tar --model tiny -o c.jsonl"),
    case("caption a zip", "caption photos.zip --model tiny -o c.jsonl --workers 2"),
    case("caption with missing paths", "caption missing.txt --model tiny -o c.jsonl"),
    case(
        "caption with include and exclude",
        """
caption photos --model tiny --include '*.jpg' --include '*.png' --exclude 'farm/*'
""",
    ),
    case("caption in batches", "caption photos --model tiny --batch-size 2 --workers 0"),
    case("caption in parallel", "caption photos --model tiny --batch-size 3 --workers 2 -v"),
    case("caption with -vv", "caption two --model tiny -vv"),
    case("caption as JSON log", "caption mixed --model tiny -o c.jsonl --log-json"),
    case(
        "caption with beams",
        """
caption two --model tiny --num-beams 3 --num-captions 2 --length-penalty 0.5
""",
    ),
    case(
        "caption by sampling",
        """
caption two --model tiny --temperature 1.2 --top-p 0.95 --top-k 40 --seed 5 --num-captions 3 \
    -o c.jsonl
""",
    ),
    case(
        "caption with penalties",
        """
caption two --model tiny --repetition-penalty 1.3 --no-repeat-ngram-size 2 --min-new-tokens 12 \
    --max-new-tokens 20 --retry-degenerate --prompt 'two'
""",
    ),
    case("caption with a preset", "caption two --model tiny --preset paper-caption"),
    case("caption with T5", "caption two --model tiny-t5 -o c.jsonl -v"),
    case("caption with T5, beams", "caption two --model tiny-t5 --num-beams 3 -q"),
    case("caption in bfloat16", "caption two --model tiny --dtype bfloat16 -v"),
    case("caption in eight bits", "caption two --model tiny --quantize int8 -v -o c.parquet"),
    case("caption with fast decoding", "caption photos --model tiny --fast-decode"),
    case("caption with a timeout", "caption two --model tiny --image-timeout 20 --workers 1"),
    case("caption damaged images", "caption mixed --model tiny -o c.jsonl --summary s.json"),
    case("caption damaged, stdout", "caption mixed --model tiny --workers 2"),
    case(
        "caption damaged, inline",
        """
caption mixed --model tiny --errors inline -o c.parquet
caption mixed --model tiny -q --errors inline -o c.jsonl
""",
    ),
    case("caption with too many errors", "caption mixed --model tiny -o c.jsonl --max-errors 2"),
    case("caption with a share of errors", "caption mixed --model tiny --max-errors 90%"),
    case("caption dry run", "caption mixed two --model tiny --dry-run -o c.jsonl"),
    case("caption dry run, quiet", "caption list.csv --model tiny --dry-run -q --keep sku"),
    case(
        "caption by environment",
        """
caption photos
""",
        env={
            "BLIP2CLI_MODEL": "tiny",
            "BLIP2CLI_OUTPUT": "c.jsonl",
            "BLIP2CLI_EXCLUDE": "*.jpg\n*.webp",
            "BLIP2CLI_BATCH_SIZE": "2",
            "BLIP2CLI_MAX_NEW_TOKENS": "5",
        },
    ),
)

RESUME = (
    case(
        "resume JSONL",
        """
caption photos --model tiny -o c.jsonl --limit 2
caption photos --model tiny -o c.jsonl
caption photos --model tiny -o c.jsonl --resume --summary s.json
caption photos --model tiny -o c.jsonl --resume
caption photos --model tiny -o c.jsonl --resume --prompt 'a photo of'
caption photos --model tiny -o c.jsonl --overwrite --limit 1
""",
    ),
    case(
        "resume Parquet",
        """
caption photos --model tiny -o c.parquet --limit 3 -q
caption photos --model tiny -o c.parquet --resume
caption photos --model tiny -o c.parquet --resume --num-beams 2 -q
caption photos --model tiny -o c.parquet
""",
    ),
    case(
        "resume gzip, torn",
        """
ask photos --model tiny -q 'is there a dog?' -o a.jsonl.gz --limit 2 --quiet
ask photos --model tiny -q 'is there a dog?' -o a.jsonl.gz --resume
caption photos --model tiny -o c.jsonl --limit 3 -q
!head -c -20 c.jsonl > t && cat t > c.jsonl && rm t
caption photos --model tiny -o c.jsonl --resume
""",
    ),
    case(
        "retry errors",
        """
caption mixed --model tiny -o c.jsonl
caption mixed --model tiny -o c.jsonl --resume
!cp photos/breakfast.jpg mixed/cut.jpg && rm mixed/words.gif
caption mixed --model tiny -o c.jsonl --retry-errors
caption c.jsonl.errors --model tiny --absolute-paths --dry-run
""",
    ),
    case(
        "resume without settings",
        """
caption two --model tiny -o c.jsonl -q
!rm .c.jsonl.meta.json
caption two --model tiny -o c.jsonl --resume
caption two --model tiny-t5 -o c.jsonl --retry-errors
""",
    ),
    case(
        "stop by duration",
        """
caption photos --model tiny -o c.jsonl --max-duration 1h -v
caption photos --model tiny -o c.jsonl --resume --max-duration 1h30m
""",
    ),
)

ASK = (
    case(
        "ask questions",
        """
ask photos --model tiny -q "how many cats are there?" -q "is there a dog?" -o a.jsonl
""",
    ),
    case(
        "ask to stdout",
        """
ask photos --model tiny -q "how many cats are there?" -q "is there a dog?"
""",
    ),
    case(
        "ask on a terminal",
        """
ask photos --model tiny -q "how many cats are there?" -q "is there a dog?" --limit 2
""",
        terminal=True,
    ),
    case("ask questions of a file", "ask photos --model tiny --questions questions.txt"),
    case(
        "ask questions of a table",
        """
ask photos --model tiny --questions questions.jsonl -o a.parquet
ask photos --model tiny --questions questions.csv -v
ask photos --model tiny --questions questions.jsonl --dry-run
""",
    ),
    case(
        "ask with choices",
        """
ask photos --model tiny -q "how many cats are there?" -q "is there a dog?" \
    --choices one,two,no -o a.parquet --num-beams 1
""",
    ),
    case(
        "ask with choices of a file",
        """
ask two --model tiny -q 'what is it?' --choices-file choices.txt --choice-norm mean
""",
    ),
    case("ask T5 with choices", "ask two --model tiny-t5 -q 'how many?' --choices one,two"),
    case(
        "ask in a conversation",
        """
ask photos --model tiny -q 'what is in the picture?' -q 'are there {answer}?' \
    -q '{history} what color is the background?' -o a.jsonl --batch-size 2
ask two --model tiny-t5 -q 'what is in the picture?' -q '{history} is there a dog?'
""",
    ),
    case("ask with a template", "ask two --model tiny -q 'how many?' --template 'Q: {question}'"),
    case("ask with a preset", "ask two --model tiny -q 'is there a dog?' --preset paper-vqa"),
    case(
        "ask by sampling",
        """
ask two --model tiny-t5 -q 'what is it?' --temperature 1.5 --seed 3 --batch-size 1
""",
    ),
    case(
        "ask damaged images",
        """
ask mixed --model tiny -q "how many cats are there?" -q "is there a dog?" -o a.jsonl
""",
    ),
    case(
        "ask damaged images, inline",
        """
ask mixed --model tiny -q "how many cats are there?" -q "is there a dog?" -o a.parquet \
    --errors inline --choices yes,two
""",
    ),
    case(
        "ask a retrieval model",
        """
ask two --model tiny-itm --choices-file choices.txt --template 'a photo of {choice}'
ask two --model tiny-itm --choices cat,dog --match -o a.parquet
ask two --model tiny-itm -q 'which animal?' --choices cat,dog -v
""",
    ),
)

COMMANDS = CAPTION + RESUME + ASK
