"""`mindset chat`: a thin shell over `mindset.llm.dialog`; parse, one library call, print."""
