# gnuplot val_loss.gp draws val_loss.svg again
set terminal svg size 860,520 dynamic background rgb 'white'
set termoption noenhanced
set output 'val_loss.svg'
set datafile missing 'nan'
set grid
set key outside right top
set xlabel 'million tokens'
set ylabel 'held-out loss (nats a token)'
plot '01_baseline_val.dat' using 1:3 with linespoints pointtype 7 pointsize 0.4 title 'baseline', \
     '02_mtp_only_val.dat' using 1:3 with linespoints pointtype 7 pointsize 0.4 title 'mtp_only', \
     '03_muon_8bit_val.dat' using 1:3 with linespoints pointtype 7 pointsize 0.4 title 'muon_8bit', \
     '04_galore2_val.dat' using 1:3 with linespoints pointtype 7 pointsize 0.4 title 'galore2', \
     '05_full_val.dat' using 1:3 with linespoints pointtype 7 pointsize 0.4 title 'full'
